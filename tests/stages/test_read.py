"""Stage ``read``: images in, one row per page out, with the real engine."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from PIL import Image, ImageDraw, ImageFont

from loraloop.core import console
from loraloop.workflows.reading import HOW
from waiting import until

TEXTS = ("HELLO WORLD", "THE VAULT IS OPEN", "TWO LINES HERE", "ONE KEY LEFT", "RING TWICE")
READ = ("stage=read", "source=vault", "source.path=scans", "source.synthetic=0", "output=pages.jsonl", "ocr.workers=2")
FRESH = "ocr.cache=null"


def draw(path: Path, text: str) -> None:
    image = Image.new("L", (620, 110), 255)
    ImageDraw.Draw(image).text((20, 35), text, fill=0, font=ImageFont.load_default(36))
    image.save(path)


def rows(folder: Path, name: str = "pages.jsonl") -> list[dict]:
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def timeless(all_rows: list[dict]) -> list[dict]:
    """Rows without what differs from run to run."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in all_rows]


def scan(folder: Path, copies: int = 1) -> Path:
    """``scans/`` with five readable images (each ``copies`` times) and one that is cut off."""
    (folder / "scans").mkdir()
    for number, text in enumerate(TEXTS * copies):
        draw(folder / "scans" / f"{number:03d}.png", text)
    whole = (folder / "scans" / "000.png").read_bytes()
    (folder / "scans" / "002-torn.png").write_bytes(whole[: len(whole) // 2])
    return folder / "scans"


@pytest.fixture
def scans(desk):
    return scan(desk.folder)


@pytest.fixture(scope="module")
def once(office):
    """Five images and a torn one, read once. Only to be looked at."""
    scan(office.folder)
    return office, office(*READ)


def test_a_row_holds_all_that_is_known_of_a_page(once):
    """A row names image, hash, size, text, confidence, words with boxes, engine, steps, duration and status."""
    desk, _ = once
    row = rows(desk.folder)[0]
    assert list(row) == [
        "image", "sha256", "width", "height", "text", "confidence", "words", "engine", "steps", "seconds", "status",
        "reason",
    ]  # fmt: skip
    assert (row["image"], row["width"], row["height"], row["text"]) == ("scans/000.png", 620, 110, "HELLO WORLD")
    assert (row["status"], row["reason"], len(row["sha256"])) == ("ok", "", 64)
    assert 50 < row["confidence"] <= 100
    assert row["seconds"] > 0
    assert row["steps"][0] == "gray"
    assert row["engine"].split()[1][0].isdigit()
    assert [word["text"] for word in row["words"]] == ["HELLO", "WORLD"]
    for word in row["words"]:
        left, top, width, height = word["box"]
        assert 0 <= left < left + width <= 620
        assert 0 <= top < top + height <= 110
        assert 0 <= word["conf"] <= 100


def test_rows_stand_in_the_order_of_the_images(once):
    """Six images give six rows by name, whichever worker was first; the torn one is quarantined with its reason."""
    desk, _ = once
    found = rows(desk.folder)
    assert [row["image"] for row in found] == [f"scans/{name}.png" for name in
                                               ("000", "001", "002-torn", "002", "003", "004")]  # fmt: skip
    assert [row["text"] for row in found if row["status"] == "ok"] == list(TEXTS)
    assert [row["reason"] for row in found if row["status"] == "quarantined"] == ["is truncated: a PNG ends with IEND"]
    assert {path for path in desk.files() if path.startswith("pages")} == {"pages.jsonl"}


def test_the_summary_counts_what_was_read_and_why_the_rest_was_not(once):
    """The summary holds pages, characters, mean confidence, pages/s, and the quarantined by reason."""
    _, seen = once
    assert seen.line("pages") == "6 (5 read, 1 quarantined)"
    assert seen.line("characters") == str(sum(map(len, TEXTS)))
    assert seen.line("confidence").endswith("(mean of the pages read)")
    assert " pages/s (6 in " in seen.line("speed")
    assert "quarantined: 1\n  1 x is truncated: a PNG ends with IEND: scans/002-torn.png" in seen.out


def test_rows_feed_the_source_as_the_images_do(once):
    """source.path=pages.jsonl gives the same dataset, quarantine included, as the images that it was read from."""
    desk, _ = once
    collect = ("stage=collect", "source=vault", "source.synthetic=0")
    images = desk(*collect, "source.path=scans", "dataset.export=images.jsonl")
    kept = desk(*collect, "source.path=pages.jsonl", "dataset.export=rows.jsonl")
    assert (desk.folder / "rows.jsonl").read_bytes() == (desk.folder / "images.jsonl").read_bytes()
    assert kept.line("fingerprint") == images.line("fingerprint")
    assert "1 x is truncated" in kept.out


def test_drawn_vaults_are_read_too(desk):
    """With source.synthetic the drawn vaults are read, before the person's own images."""
    scan(desk.folder)
    seen = desk(*READ, "source.synthetic=2")
    assert seen.line("pages") == "8 (7 read, 1 quarantined)"
    assert [Path(row["image"]).name for row in rows(desk.folder)][:3] == [
        "00000-clean.png", "00001-small.png", "000.png"
    ]  # fmt: skip


def stopped(desk, number: int) -> list[str]:
    """The lines of a run that was ended by ``number`` when it had kept two pages or more; one at least is missing."""
    process = desk.start(*READ, "ocr.workers=1", FRESH)
    part = desk.folder / "pages.jsonl.part"
    two_pages = lambda: part.exists() and part.read_bytes().count(b"\n") > 2  # noqa: E731
    until(lambda: two_pages() or process.poll() is not None, "two pages are kept", pause=0.001)
    process.send_signal(number)
    out, err = process.communicate()
    assert process.returncode == (130 if number == signal.SIGINT else -number), (out, err)
    if number == signal.SIGINT:
        assert "pages are kept; the same command goes on from there" in err
    assert not (desk.folder / "pages.jsonl").exists()
    return part.read_text("utf-8").splitlines()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_goes_on_where_it_was(desk, number):
    """After SIGKILL or Ctrl+C the same command keeps the rows so far and ends with the rows of an unbroken run."""
    scan(desk.folder, copies=3)
    lines = stopped(desk, number)
    part = desk.folder / "pages.jsonl.part"
    torn = part.read_bytes()
    part.write_bytes(torn[: torn.rstrip(b"\n").rfind(b"\n") + 20])  # the last row in the middle of being written
    seen = desk(*READ, FRESH)
    assert seen.line("kept") == f"{len(lines) - 2} of a stopped run"
    assert seen.line("pages") == "16 (15 read, 1 quarantined)"
    resumed = rows(desk.folder)
    assert [json.loads(line)["seconds"] for line in lines[1:-1]] == [
        row["seconds"] for row in resumed[: len(lines) - 2]
    ]
    (desk.folder / "pages.jsonl").unlink()
    desk(*READ, FRESH)
    assert timeless(resumed) == timeless(rows(desk.folder))
    assert not part.exists()


def keep(desk) -> None:
    """Leave the rows of a whole run as those of one that was stopped before its last step."""
    desk(*READ)
    config = yaml.safe_load(desk(*READ, "--cfg", "job", "--resolve").out)["ocr"]
    done = desk.folder / "pages.jsonl"
    settings = {name: value for name, value in console.flatten(config).items() if name not in HOW}
    (desk.folder / "pages.jsonl.part").write_bytes(
        json.dumps({"settings": settings}).encode() + b"\n" + done.read_bytes()
    )
    done.unlink()


def test_an_image_that_changed_is_read_again(desk, scans):
    """A kept row whose image has other bytes now is replaced; the others stay."""
    keep(desk)
    draw(scans / "003.png", "NEW WORDS")
    seen = desk(*READ)
    assert seen.line("kept") == "5 of a stopped run"
    assert [row["text"] for row in rows(desk.folder)][4] == "NEW WORDS"


def test_rows_of_other_settings_are_not_mixed(desk, scans):
    """Going on with other engine settings is refused, by name and both values; how fast it reads may change."""
    keep(desk)
    seen = desk.attempt(*READ, "ocr.psm=4")
    assert seen.code == 2
    assert "pages.jsonl.part keeps pages of a stopped run that were read with ocr.psm=6 (now 4)" in seen.err
    assert desk(*READ, "ocr.workers=1", "ocr.timeout_seconds=50", FRESH).line("kept") == "6 of a stopped run"


def test_images_that_came_and_went_are_counted_as_they_are(desk, scans):
    """The finished file holds the images of now: a new one is read in its place, one that is gone leaves no row."""
    keep(desk)
    shutil.copy(scans / "001.png", scans / "001-again.png")
    (scans / "004.png").unlink()
    assert desk(*READ).line("kept") == "5 of a stopped run"
    assert [Path(row["image"]).stem for row in rows(desk.folder)] == [
        "000", "001-again", "001", "002-torn", "002", "003"
    ]  # fmt: skip


def refusal(desk, *arguments: str) -> str:
    """What a command that must be refused says, in one line."""
    seen = desk.attempt(*arguments)
    assert seen.code in {1, 2}
    assert seen.err.count("\n") == 1
    assert not list(desk.folder.glob("pages.jsonl*"))
    return seen.err


def test_bad_input_is_one_clear_line(desk):
    """No image, a source without images, an output that is no .jsonl file or cannot be written: one line each."""
    (desk.folder / "empty").mkdir()
    (desk.folder / "file").write_text("x")
    assert "source.path='empty' leads to no image" in refusal(desk, *READ, "source.path=empty")
    scan(desk.folder)
    assert "output=pages.csv: one JSON row per page" in refusal(desk, *READ, "output=pages.csv")
    assert "file/pages.jsonl cannot be written" in refusal(desk, *READ, "output=file/pages.jsonl")
    assert "output is not set" in refusal(desk, "stage=read", "source.path=scans")
    assert "stage=read reads images" in refusal(desk, *READ[:1], "source=flips", "output=pages.jsonl")


def test_rows_of_another_shape_are_refused(desk):
    """A .jsonl file that stage=read did not write, an empty one and a missing one are refused before any work."""
    (desk.folder / "other.jsonl").write_text('{"input": "a", "output": "b"}\n')
    (desk.folder / "text.jsonl").write_text("hello\n")
    for name, told in (("other", "no page: image: field required"), ("text", "not JSON"), ("gone", "no such")):
        said = refusal(desk, "stage=collect", "source=vault", f"source.path={name}.jsonl", "dataset.export=d.jsonl")
        assert f"source.path={name}.jsonl" in said
        assert told in said
    scan(desk.folder)
    desk(*READ, "output=rows.jsonl")
    assert "has been read: name images" in refusal(desk, *READ, "source.path=rows.jsonl")
