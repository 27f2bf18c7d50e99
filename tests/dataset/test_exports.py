"""Exports: every format keeps every example with its provenance, whole or not at all."""

import csv
import errno
import os
from dataclasses import asdict

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loraloop.core import tables
from loraloop.core.rendering import Renderer
from loraloop.dataset.exports import export, load
from loraloop.errors import DataError
from loraloop.records import Dataset, Example, Message, Provenance, Row, ToolCall

NAMES = ["d.jsonl", "d.json", "d.alpaca.jsonl", "d.alpaca.json", "d.csv", "d.parquet", "d.toon", "folder"]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
said = text.filter(bool)
provenances = st.builds(
    Provenance,
    source=text,
    seed=st.none() | st.integers(0, 2**63 - 1),
    index=st.none() | st.integers(0, 10**6),
    image_path=st.none() | said,
    image_sha256=st.none() | said,
    ocr_confidence=st.none() | st.floats(0, 100),
    session_id=st.none() | said,
)
examples = st.builds(
    Example.one_turn,
    input=text,
    output=text,
    instruction=text,
    task=text,
    rejected=st.none() | said,
    origin=text,
    provenance=provenances,
)


def dataset(train: list[Example], validation: list[Example]) -> Dataset:
    """A dataset of these examples; exports do not look at the rendered text."""
    sides = [tuple(Row("", made.output, made) for made in side) for side in (train, validation)]
    return Dataset(train=sides[0], validation=sides[1], fingerprint="")


def full(number: int) -> Example:
    return Example.one_turn(
        input=f"HTHT {number}",
        output=f'say "{number}", twice\n',
        instruction="Read it.",
        task="ocr",
        rejected="no",
        origin=f"page{number}",
        provenance=Provenance(
            source="vault",
            seed=3,
            index=number,
            image_path=f"scans/{number}.png",
            image_sha256="ab" * 32,
            ocr_confidence=97.5,
            session_id=f"s{number}",
        ),
    )


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(train=st.lists(examples, min_size=1, max_size=4), validation=st.lists(examples, min_size=1, max_size=3))
def test_every_format_returns_the_examples(tmp_path_factory, name, train, validation):
    """What is exported, hostile text and provenance included, is what is loaded, the training side first."""
    path = export(dataset(train, validation), tmp_path_factory.mktemp("export") / name)
    assert load(path) == (*train, *validation)


@pytest.mark.parametrize("name", NAMES)
def test_every_format_returns_conversations(tmp_path, name):
    """Messages, calls, tools, labels, raw texts and a rejected call survive every format, beside plain examples."""
    look = ToolCall("look", {"at": [1, "é"], "deep": {"n": None}}, "c1")
    where = Provenance(source="test", index=3)
    made = [
        Example(
            messages=(
                Message("system", ("Be kind.",)),
                Message("user", ("a", "b")),
                Message("assistant", (), (look,), learned=False),
                Message("tool", ("{}",), tool_call_id="c1", name="look"),
                Message("assistant", ("done",)),
            ),
            tools=({"type": "function", "function": {"name": "look"}},),
            rejected=Message("assistant", (), (look,)),
            label=False,
            task="t",
            origin="o",
            provenance=where,
        ),
        Example(messages=(Message("user", ("x> ",)), Message("assistant", ("y",))), raw=True, provenance=where),
    ]
    path = export(dataset([made[0], full(1)], [made[1]]), tmp_path / name)
    assert load(path) == (made[0], full(1), made[1])


def test_a_conversation_of_several_rows_is_written_once(tmp_path):
    """Rows that end at earlier answers of one conversation are left out: the whole of it holds them."""
    said = (
        Message("user", ("a",)),
        Message("assistant", ("b",)),
        Message("user", ("c",)),
        Message("assistant", ("d",)),
    )
    whole = Example(messages=said, provenance=Provenance(source="test"))
    rows = Renderer("{input}\n", None).rows(whole)
    assert len(rows) == 2
    path = export(Dataset(train=tuple(rows), validation=(), fingerprint=""), tmp_path / "d.jsonl")
    assert [example.messages for example in load(path)] == [said]


@pytest.mark.parametrize("name", NAMES)
def test_every_row_carries_its_provenance_and_side(tmp_path, name):
    """Source, seed, index, image, OCR confidence, session and side are columns of their own in every format."""
    path = export(dataset([full(1)], [full(2)]), tmp_path / name)
    if name == "folder":
        from datasets import load_from_disk

        rows = [row for side in load_from_disk(str(path)).values() for row in side]
    else:
        rows = list(tables.read(path, lambda line, reason: pytest.fail(reason)))
    assert [row["split"] for row in rows] == ["train", "validation"]
    for number, row in enumerate(rows, 1):
        expected = asdict(full(number).provenance)
        assert {column: str(row[column]) for column in expected} == {key: str(value) for key, value in expected.items()}


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("d.jsonl", ["input", "output"]),
        ("d.alpaca.jsonl", ["instruction", "input", "output"]),
        ("d.csv", ["image_path", "ocr_text", "flip_label"]),
        ("d.toon", ["input", "output"]),
        ("d.parquet", ["input", "output"]),
    ],
)
def test_the_promised_columns_come_first(tmp_path, name, columns):
    """Each format begins with the columns by which it is known, and all formats have the same number of columns."""
    path = export(dataset([full(1)], [full(2)]), tmp_path / name)
    found = list(next(tables.read(path, lambda line, reason: pytest.fail(reason))))
    assert found[: len(columns)] == columns
    assert len(found) == len(set(found)) == 14


def test_jsonl_and_csv_are_what_other_programs_expect(tmp_path):
    """A JSONL line is one JSON object, and the CSV's ``ocr_text`` is the input and its ``flip_label`` the output."""
    data = dataset([full(1)], [full(2)])
    first = export(data, tmp_path / "d.jsonl").read_bytes().splitlines()[0]
    assert orjson.loads(first)["output"] == full(1).output
    with export(data, tmp_path / "d.csv").open(newline="", encoding="utf-8") as stream:
        row = next(csv.DictReader(stream))
    assert (row["image_path"], row["ocr_text"], row["flip_label"]) == ("scans/1.png", full(1).input, full(1).output)


def test_the_folder_is_a_dataset_dict_with_both_sides(tmp_path):
    """A name without a suffix is a ``save_to_disk`` folder with a train and a validation side of equal features."""
    from datasets import DatasetDict, load_from_disk

    path = export(dataset([full(1), full(2)], [full(3)]), tmp_path / "folder")
    loaded = load_from_disk(str(path))
    assert isinstance(loaded, DatasetDict)
    assert {side: len(rows) for side, rows in loaded.items()} == {"train": 2, "validation": 1}
    assert loaded["train"].features == loaded["validation"].features


def test_the_folder_is_written_without_a_progress_bar(tmp_path, capfd):
    """Nothing is printed, and the user's choice about progress bars is as it was."""
    import datasets

    before = datasets.are_progress_bars_disabled()
    export(dataset([full(1)], [full(2)]), tmp_path / "folder")
    assert capfd.readouterr() == ("", "")
    assert datasets.are_progress_bars_disabled() == before


def test_an_existing_folder_is_never_overwritten(tmp_path):
    """A second export to the same folder is refused and leaves the first as it was."""
    path = export(dataset([full(1)], [full(2)]), tmp_path / "folder")
    with pytest.raises(DataError, match="exists already"):
        export(dataset([full(3)], [full(4)]), path)
    assert load(path) == (full(1), full(2))
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", NAMES)
def test_a_full_disk_leaves_nothing_half_written(tmp_path, name, monkeypatch):
    """On a full disk an earlier file stays, no folder or leftover appears, and the error says what to free."""
    path = tmp_path / name
    kept = [] if name == "folder" else [export(dataset([full(1)], [full(2)]), path)]

    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", no_space)
        with pytest.raises(DataError, match=r"no space left on the disk of .* free space there"):
            export(dataset([full(3)], [full(4)]), path)
    assert list(tmp_path.iterdir()) == kept
    if kept:
        assert load(path) == (full(1), full(2))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("d.jsonl", '{"input": "a", "output": "b"}\n{"input": "a"', "d.jsonl:2: not JSON"),
        ("d.jsonl", '{"input": "a", "answer": "b"}', "row 1: no text in the column output; it has input, answer"),
        ("d.jsonl", '{"input": "a", "output": 7}', "no text in the column output"),
        ("d.jsonl", '{"input": "a", "output": "b", "seed": "x"}', "row 1: invalid literal for int"),
        ("d.csv", "input,output\na,b\n", "no text in the column ocr_text and flip_label; it has input, output"),
        ("d.txt", "x", "unknown suffix"),
    ],
)
def test_a_damaged_export_is_refused_by_line(tmp_path, name, content, says):
    """An export with a corrupt line, a missing column or a value of another type is refused, and the place is named."""
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError) as caught:
        load(tmp_path / name)
    assert says in str(caught.value)


def test_a_foreign_folder_is_refused(tmp_path):
    """A missing folder and one that ``datasets`` did not write are refused with the reason."""
    (tmp_path / "empty").mkdir()
    for name in ("empty", "missing"):
        with pytest.raises(DataError, match="is not a folder that loraloop exported"):
            load(tmp_path / name)


def test_minimal_rows_of_others_are_examples(tmp_path):
    """A plain ``{"input", "output"}`` file loads, with everything else at its default."""
    (tmp_path / "d.jsonl").write_text('{"input": "a", "output": "b"}')
    assert load(tmp_path / "d.jsonl") == (Example.one_turn(input="a", output="b", provenance=Provenance(source="")),)


def test_a_value_that_does_not_fit_is_refused(tmp_path):
    """A seed beyond 64 bits is refused by the folder export and leaves nothing."""
    big = Example.one_turn(input="a", output="b", provenance=Provenance(source="x", seed=2**70))
    with pytest.raises(DataError, match="a value cannot be kept"):
        export(dataset([big], [full(1)]), tmp_path / "folder")
    assert list(tmp_path.iterdir()) == []
