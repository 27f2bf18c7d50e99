"""The search for the way to read a page, with an engine that tells what it is told, and with the real one."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from loraloop.ocr import attempts
from loraloop.ocr.attempts import AUTO, Attempts, Clock
from loraloop.ocr.engines import Found, LateError, TesseractLibrary
from loraloop.ocr.installed import data as language_data
from loraloop.ocr.preprocess import Steps
from loraloop.ocr.score import word_f1
from loraloop.ocr.worker import text_of
from loraloop.source.vault import benchmark_data

NONE = Steps(invert=False, denoise=False, normalize=False, deskew=False, upscale=False, unrule=False)
TEXT = "The harbour office opens at nine.\nBring two copies of form B7\nand pay 42 crowns at desk four."


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
    """An engine that gives, one after the other, what it was told; boxes lie where the page's border has moved them."""

    def __init__(self, *readings: list[Found] | None) -> None:
        self.readings, self.modes = list(readings), []

    def words(self, pixels, psm, seconds):
        """The next reading; ``None`` is one that takes too long."""
        self.modes.append(psm)
        words = self.readings.pop(0)
        if words is None:
            raise LateError
        return words


PROSE = [word for row in range(6) for column in (0, 1) for word in line(6 * column + row, 600 * column, 40 * row, 8)]
CELLS = [word for row in range(6) for column in (0, 1) for word in line(6 * column + row, 600 * column, 40 * row, 2)]
ROWS = [word for row in range(6) for word in (*line(row, 0, 40 * row, 2), *line(row, 600, 40 * row, 2))]


UNSURE = [Found("wcrd", 50.0, word.box, word.line) for word in PROSE]
SURE = [Found("word", 97.0, word.box, word.line) for word in PROSE]
SURE_CELLS = [Found("word", 97.0, word.box, word.line) for word in CELLS]
SURE_ROWS = [Found("word", 97.0, word.box, word.line) for word in ROWS]


def read(engine, pixels, modes=AUTO, seconds=60.0):
    return Attempts(engine, pixels, NONE, Clock(seconds)).read(modes)


@pytest.fixture(autouse=True)
def _flat(monkeypatch):
    """The border that preparing adds would move the ink away from the words that are told."""
    monkeypatch.setattr("loraloop.ocr.preprocess.BORDER", 0)


@pytest.fixture(scope="module")
def tesseract():
    return TesseractLibrary("eng", language_data())


def sheet(text: str = TEXT) -> np.ndarray:
    picture = Image.new("L", (620, 170), 255)
    ImageDraw.Draw(picture).multiline_text((30, 25), text, font=ImageFont.load_default(28), fill=0, spacing=12)
    return np.asarray(picture)


def test_a_good_reading_is_the_only_one():
    """Sure words in columns of prose that leave no letter unread are taken, and nothing else is tried."""
    engine = Told(SURE)
    assert read(engine, page(SURE)).words == SURE
    assert engine.modes == [3]


def test_torn_cells_are_read_row_by_row():
    """Sure words in short lines side by side are read in the next mode, unsmoothed, and its whole rows are taken."""
    engine = Told(SURE_CELLS, SURE_CELLS, SURE_ROWS)
    reading = read(engine, page(CELLS))
    assert (reading.mode, reading.words) == (4, SURE_ROWS)
    assert engine.modes == [3, 3, 4]
    assert not {"soften", "despeckle"} & set(reading.prepared.steps)


def test_an_unsure_page_is_read_plain():
    """Where the prepared page's reading is unsure and that of the plain grey page is sure, the latter is the last."""
    engine = Told(UNSURE, SURE)
    reading = read(engine, page(PROSE))
    assert (reading.words, reading.prepared.steps) == (SURE, ("gray",))
    assert engine.modes == [3, 3]


def test_words_that_preparing_erased_are_read_on_the_plain_page():
    """A sure reading that leaves letters unread is followed by that of the plain page, which has them."""
    engine = Told(SURE[:84], SURE)
    assert read(engine, page(PROSE)).words == SURE
    assert engine.modes == [3, 3]


def test_an_unsure_page_is_smoothed():
    """Where the prepared and the plain page are unsure and the smoothed one is sure, that is taken."""
    engine = Told(UNSURE, UNSURE, SURE, UNSURE)
    reading = read(engine, page(PROSE))
    assert (reading.words, reading.prepared.steps[-1]) == (SURE, "soften")
    assert engine.modes == [3, 3, 3, 3]


def test_a_smoothed_page_must_be_clearly_better():
    """A smoothed page that is read a little more surely than the prepared one does not count."""
    little = [Found("word", 90.0, word.box, word.line) for word in PROSE]
    more = [Found("ward", 90.5, word.box, word.line) for word in PROSE]
    assert read(Told(little, UNSURE, more, more), page(PROSE)).words == little


def test_the_way_with_the_most_likely_words_is_read_in_other_modes():
    """Half a page in every preparation is followed by the other modes, and the mode that reads all of it is taken."""
    half = SURE[:48]
    engine = Told(half, half, half, half, half, half, SURE)
    assert read(engine, page(SURE)).mode == 11
    assert engine.modes == [3, 3, 3, 3, 4, 6, 11]


def test_nothing_is_left_untried_on_a_poor_page():
    """Where no way gives likely words, the plain page is read as one block of text too, and that may count."""
    engine = Told(*[UNSURE] * 4, *[[]] * 3, *[UNSURE] * 3, SURE)
    reading = read(engine, page(PROSE))
    assert (reading.words, reading.mode, reading.prepared.steps) == (SURE, 6, ("gray",))
    assert engine.modes == [*[3] * 7, 4, 6, 11, 6]


def test_the_best_reading_so_far_counts_when_time_is_up():
    """A later reading that takes too long, or for which no time is left, does not cost the page."""
    assert read(Told(SURE[:48], *[None] * 7), page(SURE)).words == SURE[:48]
    assert read(Told(SURE[:48]), page(SURE), seconds=0.0).words == SURE[:48]


def test_a_page_whose_first_reading_is_late_is_late():
    """Without a single reading there is nothing to take."""
    with pytest.raises(LateError):
        read(Told(None), page(SURE))


def test_a_blank_page_is_settled_at_once():
    """A page without ink is read once."""
    engine = Told([])
    assert read(engine, np.full((50, 50), 255, np.uint8)).words == []
    assert engine.modes == [3]


def test_turned_readings_that_are_not_clearly_better_do_not_count():
    """A turned page read a little better than the page as it is leaves that as it is."""
    little = [Found("word", 60.0, word.box, word.line) for word in PROSE]
    reading = read(Told(UNSURE, little, little, little), page(PROSE), modes=(6,))
    assert reading.words == UNSURE


def test_a_clock_counts_processor_time_alone(monkeypatch):
    """Waiting takes no time from a page; work of this process and of programs that it ran does."""
    monkeypatch.setattr(attempts.os, "times", iter([(1, 1, 0, 0, 50), (1, 1, 0, 0, 99), (2, 1, 1, 1, 99)]).__next__)
    clock = Clock(4.0)
    assert clock.left() == 4.0
    assert clock.left() == 1.0


@pytest.mark.parametrize("quarters", [1, 2, 3])
@pytest.mark.parametrize("modes", [AUTO, (6,)])
def test_a_turned_page_is_read(tesseract, quarters, modes):
    """A page on its side or head is turned and read, whatever the mode, and its matrix leads to the words' ink."""
    pixels = np.ascontiguousarray(np.rot90(sheet(), quarters))
    reading = Attempts(tesseract, pixels, Steps(), Clock(60)).read(modes)
    assert text_of(reading.words) == TEXT
    matrix = reading.prepared.matrix
    for left, top, width, height in (word.box for word in reading.words):
        middle = np.linalg.solve(matrix[:, :2], np.array([left + width / 2, top + height / 2]) - matrix[:, 2])
        column, row = (math.floor(value) for value in middle)
        assert pixels[max(0, row - 14) : row + 14, max(0, column - 14) : column + 14].min() < 128


def test_a_fax_is_read_better_than_plain(tesseract):
    """Jagged letters of black dots are read by far better than from the plain grey page, smoothed."""
    made = benchmark_data.document(benchmark_data.TUNE, 2)
    plain = max(word_f1(made.text, text_of(tesseract.words(made.pixels, mode, 60))) for mode in (3, 6))
    reading = Attempts(tesseract, made.pixels, Steps(), Clock(60)).read(AUTO)
    assert {"soften", "despeckle"} & set(reading.prepared.steps)
    assert word_f1(made.text, text_of(reading.words)) > plain + 0.15


def test_a_receipt_is_read_by_rows_with_its_words_in_order(tesseract):
    """Items and prices that stand apart are read in one line each."""
    made = benchmark_data.document(benchmark_data.TUNE, 5)
    reading = Attempts(tesseract, made.pixels, Steps(), Clock(60)).read(AUTO)
    assert text_of(reading.words) == made.text
