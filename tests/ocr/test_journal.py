"""Rows of pages kept beside the file that they become."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import orjson
import pytest

from loraloop.errors import ConfigError
from loraloop.ocr.image import digest
from loraloop.ocr.journal import Journal
from loraloop.ocr.pool import Pool
from loraloop.ocr.tesseract import Tesseract
from loraloop.records import Page, Word

SETTINGS = {"psm": "6"}


def page(image: Path) -> Page:
    return Page(
        image=str(image),
        sha256=digest(image),
        width=4,
        height=3,
        text=image.stem,
        confidence=90.0,
        words=(Word(image.stem, 90.0, (0, 0, 4, 3)),),
        engine="test 1",
        steps=("gray",),
        seconds=0.1,
    )


def read(images: Iterable[Path]) -> Iterator[Page]:
    return map(page, images)


def never(images: Iterable[Path]) -> Iterator[Page]:
    assert list(images) == []
    return iter(())


def ignore(row: object, kept: bool) -> None:
    pass


def texts(output: Path) -> list[str]:
    return [json.loads(line)["text"] for line in output.read_text("utf-8").splitlines()]


@pytest.fixture
def images(tmp_path):
    made = [tmp_path / "images" / f"{name}.png" for name in "abcd"]
    made[0].parent.mkdir()
    for number, image in enumerate(made):
        image.write_bytes(bytes([number]))
    return made


def test_only_a_few_pages_are_in_flight_however_many_there_are(tmp_path):
    """Over 10,000 pages no more than a few per worker are taken and not yet kept: memory stays flat."""
    taken, seen, ahead = 0, 0, []

    def endless() -> Iterator[Path]:
        nonlocal taken
        for number in range(10_000):
            taken += 1
            ahead.append(taken - seen)
            yield tmp_path / f"{number}.png"

    def count(row: object, kept: bool) -> None:
        nonlocal seen
        seen += 1

    with Journal(tmp_path / "pages.jsonl", SETTINGS) as journal:
        journal.fill(endless(), lambda items: Pool(["false"], {}, 2).map(page, items), count)
        assert len(journal) == seen == taken == 10_000
    assert max(ahead) <= 4 * 2 + 1


def test_a_row_is_on_disk_before_it_is_told_of(tmp_path, images):
    """When a page is counted its row is in the file already: what was shown is never lost to a kill."""
    lines: list[int] = []
    with Journal(tmp_path / "pages.jsonl", SETTINGS) as journal:
        journal.fill(images, read, lambda row, kept: lines.append(journal.file.read_bytes().count(b"\n")))
    assert lines == [2, 3, 4, 5]


def test_rows_of_pages_read_out_of_step_stand_in_the_order_of_the_images(tmp_path, images):
    """What was read last time and what is read now are written in the images' order, as one whole file."""
    output = tmp_path / "pages.jsonl"
    with Journal(output, SETTINGS) as journal:
        journal.fill([images[3], images[1]], read, ignore)
    with Journal(output, SETTINGS) as journal:
        journal.fill(images, read, ignore)
        assert not output.exists()
        journal.finish(images)
    assert texts(output) == ["a", "b", "c", "d"]
    assert not journal.file.exists()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_line_torn_anywhere_is_read_again(tmp_path, images, cut):
    """A progress file that loses its last bytes loses the row that they belong to, and no other."""
    with Journal(tmp_path / "pages.jsonl", SETTINGS) as journal:
        journal.fill(images, read, ignore)
    journal.file.write_bytes(journal.file.read_bytes()[:-cut])
    again: list[Path] = []
    with Journal(tmp_path / "pages.jsonl", SETTINGS) as journal:
        journal.fill(images, lambda items: read(again.append(item) or item for item in items), ignore)
    assert again == images[3:]
    with Journal(tmp_path / "pages.jsonl", SETTINGS) as journal:
        journal.fill(images, never, ignore)
        journal.finish(images)
    assert texts(tmp_path / "pages.jsonl") == ["a", "b", "c", "d"]


def test_a_progress_file_torn_in_its_first_line_begins_anew(tmp_path, images):
    """A run killed while it wrote the settings has kept nothing; the next one is not in its way."""
    (tmp_path / "pages.jsonl.part").write_bytes(b'{"settings": {"ps')
    with Journal(tmp_path / "pages.jsonl", SETTINGS) as journal:
        journal.fill(images, read, ignore)
    with Journal(tmp_path / "pages.jsonl", SETTINGS) as journal:
        journal.fill(images, never, ignore)


def test_a_file_that_is_no_progress_is_not_touched(tmp_path):
    """A person's own pages.jsonl.part is refused and stays as it is."""
    (tmp_path / "pages.jsonl.part").write_text("my notes\n")
    with pytest.raises(ConfigError, match="holds no pages: name another output"):
        Journal(tmp_path / "pages.jsonl", SETTINGS)
    assert (tmp_path / "pages.jsonl.part").read_text() == "my notes\n"


def test_two_runs_do_not_write_one_file(tmp_path):
    """The second run on the same output is refused while the first one lives."""
    with (
        Journal(tmp_path / "pages.jsonl", SETTINGS),
        pytest.raises(ConfigError, match="is being written by another run"),
    ):
        Journal(tmp_path / "pages.jsonl", SETTINGS)
    Journal(tmp_path / "pages.jsonl", SETTINGS).__exit__(None, None, None)


def test_a_file_name_that_is_no_utf8_costs_one_row(tmp_path, images):
    """An image with a name of stray bytes is set aside, its row is UTF-8, and the others are kept."""
    image = tmp_path / os.fsdecode(b"caf\xe9.png")
    image.write_bytes(b"x")
    with Journal(tmp_path / "pages.jsonl", SETTINGS) as journal:
        journal.fill([image, *images[:1]], Tesseract(cache=None, workers=1).read, ignore)
        journal.finish([image, *images[:1]])
    first, _ = map(orjson.loads, (tmp_path / "pages.jsonl").read_bytes().splitlines())
    assert Path(first["image"]).name == r"caf\xe9.png"
    assert (first["status"], first["reason"]) == ("quarantined", "its name is not UTF-8: rename it")


def test_an_earlier_file_stays_when_the_rows_cannot_be_finished(tmp_path, images):
    """A finished file is replaced whole or not at all."""
    (tmp_path / "pages.jsonl").write_text("earlier\n")
    with Journal(tmp_path / "pages.jsonl", SETTINGS) as journal:
        journal.fill(images[:1], read, ignore)
        with pytest.raises(KeyError):
            journal.finish(images)
    assert (tmp_path / "pages.jsonl").read_text() == "earlier\n"
    assert journal.file.exists()
