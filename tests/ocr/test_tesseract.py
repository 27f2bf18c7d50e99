"""Tesseract as an implementation of the Ocr protocol, with the real program."""

import json
import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from PIL import Image, ImageDraw, ImageFont

from loraloop.errors import MissingDependencyError
from loraloop.ocr.pool import LostError, Pool
from loraloop.ocr.tesseract import Tesseract

TEXT = "The quick brown fox\njumps over 13 dogs"


def image(path: Path, text: str = TEXT, size: int = 28) -> Path:
    """A page of text: dark letters on white, 12 points from the top left corner."""
    font = ImageFont.load_default(size)
    picture = Image.new("L", (16 * size, 2 * size * (text.count("\n") + 2)), 255)
    ImageDraw.Draw(picture).multiline_text((12, 12), text, font=font, fill=0, spacing=size // 2)
    picture.save(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of every kind that a folder may hold."""
    made = tmp_path_factory.mktemp("images")
    image(made / "a.png")
    (made / "b.png").touch()
    image(made / "c.png", "Second page", 40)
    (made / "d.png").write_text("not an image")
    (made / "e.png").write_bytes((made / "a.png").read_bytes()[:-20])
    return made


@pytest.fixture(scope="module")
def pages(folder):
    """The folder's images and one that is missing, read once for all tests."""
    images = [*sorted(folder.iterdir()), folder / "missing.png"]
    return list(Tesseract(cache=None, workers=2).read(images))


def test_pages_come_in_the_order_of_the_images_and_none_is_lost(folder, pages):
    """There is one page per image, in order; the unreadable ones are quarantined, the others are not affected."""
    assert [Path(page.image).name for page in pages] == ["a.png", "b.png", "c.png", "d.png", "e.png", "missing.png"]
    assert [page.status for page in pages] == ["ok", "quarantined", "ok", "quarantined", "quarantined", "quarantined"]
    assert [page.text for page in pages] == [TEXT, "", "Second page", "", "", ""]


def test_a_quarantined_page_says_why(pages):
    """Every quarantined page has a reason, and an ok page has none."""
    assert [page.reason for page in pages] == [
        "",
        "is empty (0 bytes)",
        "",
        "is not a PNG, JPEG, TIFF, WebP, BMP, GIF or JPEG 2000 image",
        "is truncated: a PNG ends with IEND",
        "cannot be opened: No such file or directory",
    ]


def test_words_carry_confidence_and_the_box_of_their_ink(folder, pages):
    """Each word's box, in pixels of the image, holds the word's ink: outside all boxes the page is white."""
    pixels = np.asarray(Image.open(folder / "a.png")).copy()
    for word in pages[0].words:
        left, top, width, height = word.box
        assert pixels[top : top + height, left : left + width].min() < 80
        assert 50 < word.confidence <= 100
        pixels[max(0, top - 2) : top + height + 2, max(0, left - 2) : left + width + 2] = 255
    assert pixels.min() > 128
    assert [word.text for word in pages[0].words] == TEXT.split()


def test_boxes_are_mapped_back_from_a_scaled_and_turned_page(tmp_path):
    """Small tilted text is scaled up and levelled for reading, and its boxes still lie on its ink in the original."""
    image(tmp_path / "a.png", "\n".join([TEXT] * 4), 14)
    pixels = np.asarray(Image.open(tmp_path / "a.png"))
    height, width = pixels.shape
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), 3, 1.0)
    pixels = cv2.warpAffine(pixels, matrix, (width, height), borderValue=255)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    [page] = Tesseract(cache=None).read([tmp_path / "a.png"])
    assert {step.split()[0] for step in page.steps} >= {"deskew", "upscale"}
    assert page.text == "\n".join([TEXT] * 4)
    for word in page.words:
        left, top, wide, high = word.box
        assert pixels[top : top + high, left : left + wide].min() < 128


def test_a_page_in_the_cache_is_not_read_again(folder, tmp_path):
    """The second reading gives the same page, its first duration included; other settings read anew."""
    ocr = Tesseract(cache=tmp_path / "cache")
    [first] = ocr.read([folder / "a.png"])
    assert list(ocr.read([folder / "a.png"])) == [first]
    list(replace(ocr, psm=4).read([folder / "a.png"]))
    assert len(list((tmp_path / "cache").rglob("*.json"))) == 2


def test_an_unreadable_image_is_not_kept_in_the_cache(folder, tmp_path):
    """A quarantined page is judged anew every time: its cause may have been a busy machine."""
    list(Tesseract(cache=tmp_path).read([folder / "d.png"]))
    assert not list(tmp_path.iterdir())


@pytest.mark.fault("OCR engine hung", "collect", "the page is quarantined after its time limit, the others are read")
def test_a_slow_page_is_quarantined(tmp_path):
    """A page that Tesseract does not finish in time, read alone neither, is set aside with the setting's name."""
    # Tesseract looks at the clock between words: a page of two lines may be read before its first look.
    long = image(tmp_path / "long.png", "\n".join([TEXT] * 20))
    [page] = Tesseract(cache=None, timeout_seconds=0.001).read([long])
    assert page.status == "quarantined"
    assert page.reason == "took longer than ocr.timeout_seconds=0.001 of processor time"


def test_a_late_page_is_asked_for_again_alone_and_simply(folder, monkeypatch):
    """A page that is late is read a second time, alone and in one way, and that reading counts."""
    asked = []
    late = LostError("took longer than 1 s", late=True)

    def ask(pool, question, seconds):
        asked.append(json.loads(question)[1])
        raise late

    alone = Pool.ask_alone

    def ask_alone(pool, question, seconds):
        asked.append(json.loads(question)[1])
        return alone(pool, question, seconds)

    monkeypatch.setattr(Pool, "ask", ask)
    monkeypatch.setattr(Pool, "ask_alone", ask_alone)
    [page] = Tesseract(cache=None, workers=2, psm="auto").read([folder / "a.png"])
    assert (page.status, page.text) == ("ok", TEXT)
    assert asked == [False, True]


def test_a_huge_image_is_quarantined(folder):
    """An image of more pixels than allowed is set aside by name of the key that allows it."""
    [page] = Tesseract(cache=None, max_pixels=1000).read([folder / "a.png"])
    assert page.status == "quarantined"
    assert "ocr.max_pixels=1000" in page.reason


@pytest.mark.parametrize("threshold", ["otsu", "adaptive"])
def test_thresholds_read_a_clean_page_too(folder, threshold):
    """A clean page is read right with either threshold."""
    [page] = Tesseract(cache=None, threshold=threshold).read([folder / "a.png"])
    assert page.text == TEXT
    assert page.steps[-1] == threshold


def test_without_tesseract_the_error_holds_the_install_line(monkeypatch, tmp_path):
    """A machine without the program is told how to install it, by the check and by the reading."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for work in (Tesseract().check, lambda: Tesseract().read([])):
        with pytest.raises(MissingDependencyError, match=r"apt-get install tesseract-ocr.*brew install tesseract"):
            work()


def test_a_missing_language_is_named_with_its_package():
    """Language data that is not installed is named with what there is and the line that installs it."""
    with pytest.raises(MissingDependencyError, match=r"no data for xyz_abc \(there is: .*eng.*tesseract-ocr-xyz-abc`"):
        Tesseract(language="eng+xyz_abc").check()


def test_reading_leaves_this_process_environment_alone(pages):
    """OMP_THREAD_LIMIT=1 is set for Tesseract only: torch in this process keeps its threads."""
    assert len(pages) == 6
    assert "OMP_THREAD_LIMIT" not in os.environ


def test_a_warm_engine_keeps_its_worker_until_the_end(folder):
    """Images that are read one at a time while the engine is warm are read by one process, which ends with it."""

    def workers() -> list[int]:
        return [one.pid for one in psutil.Process().children() if "loraloop.ocr.worker" in one.cmdline()]

    engine, before = Tesseract(cache=None, workers=2), workers()
    with engine.warm():
        seen = [(next(engine.read([folder / name])).text != "", workers()) for name in ("a.png", "c.png")]
    assert seen == [(True, seen[0][1]), (True, seen[0][1])]
    assert len(seen[0][1]) == len(before) + 1
    assert workers() == before
