"""Datasets of the Hugging Face Hub: the real loader on local folders, and a hub that does not answer."""

import http.server
import io
import json
import threading
from pathlib import Path

import pytest
from PIL import Image
from pydantic import ValidationError

from loraloop.core import tables
from loraloop.errors import ConfigError, DataError
from loraloop.records import Page
from loraloop.source.columns import Columns
from loraloop.source.hub import Hub

ALPACA = [
    {"instruction": f"Double {i}.", "input": "" if i % 2 else str(i), "output": str(2 * i), "text": "..."}
    for i in range(6)
]
COLUMNS = Columns(instruction="instruction", input="input", output="output")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Prepared data goes to a folder of the test, and the hub is on even where a variable turns it off."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)


def rows_of(source: Hub) -> list[tuple[str, str, str]]:
    return [(e.instruction, e.input, e.output) for e in source.collect(None).examples]


def alpaca(folder: Path, suffix: str) -> Path:
    folder.mkdir()
    if suffix == "save_to_disk":
        import datasets

        datasets.DatasetDict({"train": datasets.Dataset.from_list(ALPACA)}).save_to_disk(folder / "saved")
        return folder / "saved"
    tables.write(folder / f"train{suffix}", ALPACA)
    return folder


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", "save_to_disk"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_is_mapped_by_its_columns(tmp_path, suffix, streaming):
    """The library's loader gives the rows in order, streamed or not, whatever the folder holds."""
    folder = alpaca(tmp_path / "data", suffix)
    source = Hub(name=str(folder), columns=COLUMNS, streaming=streaming)
    assert rows_of(source) == [(row["instruction"], row["input"], row["output"]) for row in ALPACA]
    examples = source.collect(None).examples
    assert [(e.provenance.source, e.provenance.index) for e in examples] == [("hub", i) for i in range(6)]


def test_the_limit_is_a_number_of_rows(tmp_path):
    """Reading stops after the asked number of rows."""
    assert len(rows_of(Hub(name=str(alpaca(tmp_path / "data", ".jsonl")), limit=4))) == 4


def test_a_split_or_column_that_is_not_there_is_named_with_those_that_are(tmp_path):
    """A wrong split and a wrong column end in an error that lists what the dataset has."""
    folder = alpaca(tmp_path / "data", ".jsonl")
    with pytest.raises(DataError, match=r"split=tset.*train"):
        Hub(name=str(folder), split="tset").collect(None)
    with pytest.raises(DataError, match=r"source\.split=tset: .*it has train"):
        Hub(name=str(alpaca(tmp_path / "disk", "save_to_disk")), split="tset").collect(None)
    with pytest.raises(
        DataError, match=r"no column 'ouptut'.*did you mean output\?.*it has instruction, input, output"
    ):
        Hub(name=str(folder), columns=Columns(output="ouptut")).collect(None)


def test_without_a_network_there_is_one_clear_error(monkeypatch):
    """When nothing answers at the hub's address the error names the dataset, the address and the ways out."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DataError) as error:
        Hub(name="tatsu-lab/alpaca").collect(None)
    assert "source.name=tatsu-lab/alpaca: the Hugging Face Hub (http://127.0.0.1:9) cannot be reached" in str(
        error.value
    )
    assert "HF_HUB_OFFLINE=1" in str(error.value)


class NoSuchRepository(http.server.BaseHTTPRequestHandler):
    """A hub that knows no dataset."""

    def do_GET(self):
        """Answer 404 as the hub does for an unknown repository."""
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *args):
        """Say nothing."""


def test_a_dataset_that_the_hub_does_not_have_is_a_clear_error(monkeypatch):
    """When the hub answers that there is no such dataset, the error says so with the name and the revision."""
    import datasets

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), NoSuchRepository) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(DataError, match=r"name=nobody/nothing, split=train, revision=v1\).*doesn't exist"):
            Hub(name="nobody/nothing", revision="v1").collect(None)
        server.shutdown()


def test_a_loading_script_is_never_run(tmp_path):
    """A folder whose dataset is a Python script is refused; the script leaves no trace."""
    trace = tmp_path / "ran"
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "scripted.py").write_text(f"open({str(trace)!r}, 'w').close()")
    with pytest.raises(DataError, match="cannot load the dataset"):
        Hub(name=str(folder)).collect(None)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("name", "says"), [(None, "is not set"), ("a/b/c", "neither a folder"), ("http://x", "OWNER/NAME")]
)
def test_a_name_is_needed_and_formed_like_an_id(name, says):
    """A name that is missing, or neither a folder nor an id, is refused before any work."""
    with pytest.raises(ConfigError, match=says):
        Hub(name=name).check()


class SizeReader:
    """Reads an image as its width and height, and cannot read what is no image."""

    def read(self, images):
        """One page per image."""
        for path in images:
            facts = {
                "image": str(path),
                "sha256": f"sha-{path.name}",
                "words": (),
                "engine": "size",
                "steps": (),
                "seconds": 0.0,
            }
            try:
                width, height = Image.open(path).size
                yield Page(**facts, width=width, height=height, text=f"{width}x{height}", confidence=91.0)
            except OSError as error:
                why = type(error).__name__
                yield Page(**facts, width=0, height=0, text="", confidence=0.0, status="quarantined", reason=why)


def png(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (width, height)).save(buffer, "png")
    return buffer.getvalue()


@pytest.mark.parametrize("streaming", [False, True])
def test_images_are_read_by_ocr_and_corrected_to_the_truth(tmp_path, streaming):
    """What OCR reads in an image column is the input, its truth the output; a bad or absent image is set aside."""
    import datasets

    images = [png(4, 3), png(5, 2), b"no image", png(6, 1), None]
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    rows = {"image": [content and {"bytes": content, "path": None} for content in images], "text": list("abcde")}
    (tmp_path / "iam").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "iam" / "train.parquet")
    source = Hub(name=str(tmp_path / "iam"), image="image", columns=Columns(output="text"), streaming=streaming)
    collection = source.collect(SizeReader())
    assert [(e.input, e.output) for e in collection.examples] == [("4x3", "a"), ("5x2", "b"), ("6x1", "d")]
    assert [(q.item, q.reason) for q in collection.quarantined] == [
        ("row 2", "UnidentifiedImageError"),
        ("row 4", "UnidentifiedImageError"),
    ]
    facts = collection.examples[2].provenance
    assert (facts.index, facts.ocr_confidence, facts.image_sha256) == (3, 91.0, collection.examples[2].origin)


def test_an_image_column_needs_ocr_and_images(tmp_path):
    """An image column without an OCR engine, or without images in it, is a clear error."""
    folder = str(alpaca(tmp_path / "data", ".jsonl"))
    with pytest.raises(DataError, match="needs an OCR engine"):
        Hub(name=folder, image="text").collect(None)
    with pytest.raises(DataError, match="no images in a column 'text'"):
        Hub(name=folder, image="text").collect(SizeReader())
    with pytest.raises(ValidationError, match="both fill the input"):
        Hub(name=folder, image="text", columns=Columns(input="input"))


def test_nested_columns_are_reached(tmp_path):
    """WebArena's expected task type lies in the first evaluator of a row and is reached by a dotted column."""
    rows = [
        {
            "intent": f"Find order {i}",
            "sites": ["shopping"],
            "eval": [{"expected": {"task_type": kind}}, {"expected": {"url": "x"}}],
        }
        for i, kind in enumerate(("RETRIEVE", "MUTATE"))
    ]
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "full.json").write_text(json.dumps(rows))
    columns = Columns(input="intent", output="eval.0.expected.task_type", task="sites.0")
    examples = Hub(name=str(tmp_path / "web"), columns=columns).collect(None).examples
    assert [(e.input, e.output, e.task) for e in examples] == [
        ("Find order 0", "RETRIEVE", "shopping"),
        ("Find order 1", "MUTATE", "shopping"),
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_values_are_those_that_the_rows_stand_for(tmp_path, streaming):
    """A text in a column of mixed JSON has no quotes around it, also in a list; a class is its name."""
    import datasets

    mixed = tmp_path / "mixed"
    mixed.mkdir()
    rows = [
        {"input": f"q{i}", "output": i if i % 2 else f"a{i}", "more": [{"x": i if i % 2 else "x"}]} for i in range(4)
    ]
    (mixed / "train.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    source = Hub(name=str(mixed), streaming=streaming)
    assert [each.output for each in source.collect(None).examples] == ["a0", "1", "a2", "3"]
    nested = Hub(name=str(mixed), streaming=streaming, columns=Columns(output="more.0.x"))
    assert [each.output for each in nested.collect(None).examples] == ["x", "1", "x", "3"]
    labels = datasets.Dataset.from_dict({"input": ["a", "b"], "output": [1, 0]})
    labels = labels.cast_column("output", datasets.ClassLabel(names=["no", "yes"]))
    labels.save_to_disk(tmp_path / "labels")
    source = Hub(name=str(tmp_path / "labels"), streaming=streaming)
    assert [each.output for each in source.collect(None).examples] == ["yes", "no"]


@pytest.mark.parametrize("streaming", [False, True])
def test_cells_of_a_csv_stay_as_they_are_written(tmp_path, streaming):
    """Leading zeros, and words that pandas takes for a missing value, are texts."""
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "a.csv").write_text("input,output\na,007\nb,None\nc,NA\nd,1.50\n")
    examples = Hub(name=str(tmp_path / "csv"), streaming=streaming).collect(None).examples
    assert [each.output for each in examples] == ["007", "None", "NA", "1.50"]


def test_a_slice_of_what_was_saved_to_disk_is_honoured(tmp_path):
    """``source.split`` takes the rows that it names from a saved dataset and from saved splits, or is refused."""
    import datasets

    rows = datasets.Dataset.from_dict({"input": [f"q{i}" for i in range(6)], "output": [f"a{i}" for i in range(6)]})
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=rows, test=rows.select([5])).save_to_disk(tmp_path / "two")

    def outputs(name, split):
        return [each.output for each in Hub(name=str(tmp_path / name), split=split).collect(None).examples]

    assert outputs("one", "train[:50%]") == ["a0", "a1", "a2"]
    assert outputs("two", "train[4:]+test") == ["a4", "a5", "a5"]
    with pytest.raises(DataError, match=r"source\.split=test\[:1\]: .* has no such split; it has train"):
        outputs("one", "test[:1]")
