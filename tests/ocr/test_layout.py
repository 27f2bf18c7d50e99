"""The choice of a page segmentation mode, on words and pictures of words."""

import numpy as np
import pytest

from loraloop.ocr import layout
from loraloop.ocr.engines import Found, TesseractLibrary
from loraloop.ocr.image import UnreadableError
from loraloop.ocr.installed import data
from loraloop.ocr.preprocess import Steps, prepare
from loraloop.ocr.score import ordered_word_f1
from loraloop.ocr.worker import text_of
from loraloop.source.vault import benchmark_data


def line(number: int, left: int, top: int, words: int) -> list[Found]:
    """A line of words, each 40 pixels wide and 20 high."""
    return [Found("word", 90.0, (left + 50 * index, top, 40, 20), number) for index in range(words)]


def page(words: list[Found]) -> np.ndarray:
    """A page with four letters of ink in every word."""
    pixels = np.full((400, 1200), 255, np.uint8)
    for word in words:
        left, top, width, height = word.box
        for letter in range(0, width, 10):
            pixels[top + 2 : top + height - 2, left + letter + 2 : left + letter + 8] = 0
    return pixels


class Told:
    """An engine that gives what it was told for each mode."""

    def __init__(self, **readings: list[Found]) -> None:
        self.readings, self.asked = readings, []

    def words(self, pixels, psm, seconds):
        """The words of the mode."""
        self.asked.append(psm)
        return self.readings[f"psm{psm}"]


PROSE = [word for row in range(6) for column in (0, 1) for word in line(6 * column + row, 600 * column, 40 * row, 8)]
CELLS = [word for row in range(6) for column in (0, 1) for word in line(6 * column + row, 600 * column, 40 * row, 2)]
ROWS = [word for row in range(6) for word in (*line(row, 0, 40 * row, 2), *line(row, 600, 40 * row, 2))]


def test_columns_of_prose_are_read_once():
    """Long lines side by side are columns: the first mode's reading is taken, and no other is tried."""
    engine = Told(psm3=PROSE)
    assert layout.read(engine, page(PROSE), 10) == (3, PROSE)
    assert engine.asked == [3]


def test_short_lines_side_by_side_are_read_row_by_row():
    """Two columns of two words each are cells, and the mode that joins their rows is taken."""
    engine = Told(psm3=CELLS, psm4=ROWS)
    assert layout.read(engine, page(CELLS), 10) == (4, ROWS)
    assert engine.asked == [3, 4]


def test_letters_left_unread_are_sought_in_other_modes():
    """When the first modes miss half of the page, the one that reads most is taken, however it orders it."""
    engine = Told(psm3=PROSE[:48], psm4=PROSE[:40], psm6=[], psm11=PROSE)
    assert layout.read(engine, page(PROSE), 10) == (11, PROSE)
    assert engine.asked == [3, 4, 6, 11]


def test_an_empty_page_is_settled_at_once():
    """A page without ink has no letters unread and no cells."""
    assert layout.read(Told(psm3=[]), np.full((50, 50), 255, np.uint8), 10) == (3, [])


def test_time_is_shared_by_the_modes():
    """When the first mode has used up the time, the page is late and no other mode is begun."""
    engine = Told(psm3=CELLS)
    with pytest.raises(UnreadableError, match=r"took longer than 0 s"):
        layout.read(engine, page(CELLS), 0.0)


@pytest.mark.parametrize(("share", "expected"), [(1.0, 0.0), (0.75, 0.25), (0.0, 1.0)])
def test_unread_letters_are_counted(share, expected):
    """The share of letters outside all words is what is missing of the words."""
    assert layout.unread(page(PROSE), PROSE[: round(share * len(PROSE))]) == pytest.approx(expected)


@pytest.mark.parametrize(("index", "mode"), [(5, 4), (17, 3)])
def test_real_pages_get_the_mode_of_their_kind(index, mode):
    """A receipt is read by rows and an article by columns, each with its words in order."""
    case = benchmark_data.document(benchmark_data.TUNE, index)
    pixels = prepare(case.pixels, Steps()).pixels
    chosen, words = layout.read(TesseractLibrary("eng", data()), pixels, 100)
    assert chosen == mode
    assert ordered_word_f1(case.text, text_of(words)) > 0.95
