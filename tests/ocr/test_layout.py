"""What a reading tells of itself, on words and pictures of words."""

import numpy as np
import pytest

from loraloop.ocr import layout
from loraloop.ocr.engines import Found


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


PROSE = [word for row in range(6) for column in (0, 1) for word in line(6 * column + row, 600 * column, 40 * row, 8)]
CELLS = [word for row in range(6) for column in (0, 1) for word in line(6 * column + row, 600 * column, 40 * row, 2)]
ROWS = [word for row in range(6) for word in (*line(row, 0, 40 * row, 2), *line(row, 600, 40 * row, 2))]


def words(*confidences: float, text: str = "word") -> list[Found]:
    return [Found(text, confidence, (0, 0, 40, 20), 0) for confidence in confidences]


def test_confident_words_are_likely_right_and_marks_are_not():
    """A sure word counts as one, an unsure one as little, and a lone ``|`` as nothing, however sure."""
    assert layout.likely(words(97, 97)) == 2
    assert layout.likely(words(50)) == pytest.approx(0.14, abs=0.01)
    assert layout.likely(words(97, text="|")) == 0


def test_the_estimate_falls_with_doubt_with_marks_and_with_what_is_missing():
    """A sure and whole reading is expected to be right; unread letters, marks and another reading's words lower it."""
    sure = words(*[97] * 10)
    assert layout.estimate(sure, 0.0, 40) == 1
    assert layout.estimate(sure, 0.5, 40) == pytest.approx(2 / 3)
    assert layout.estimate(sure, 0.0, 120) == 0.5
    assert layout.estimate(sure + words(*[90] * 10, text="—"), 0.0, 40) < 0.7
    assert layout.estimate(words(*[50] * 10), 0.0, 40) < 0.2


def test_a_reading_that_parts_words_is_not_worth_more():
    """``324`` and ``70`` are no more of the page than ``324.70``: a reading is not better by having more words."""
    whole, parted = words(*[96] * 10, text="324.70"), words(*[97] * 10, text="324") + words(*[97] * 10, text="70")
    most = layout.likely_letters(parted)
    assert most == 50
    assert layout.estimate(whole, 0.0, most) == pytest.approx(0.97, abs=0.01)


def test_nothing_read_is_right_for_a_blank_page_alone():
    """No words are expected to be right where no letters are, unless another reading of the page found some."""
    assert layout.estimate([], 0.0, 0) == 1
    assert layout.estimate([], 0.4, 0) == layout.estimate([], 0.0, 5) == 0


def test_short_lines_side_by_side_are_cells():
    """Two columns of two words each are cells; columns of prose and whole rows are not."""
    assert layout.cells(CELLS) == 1
    assert layout.cells(PROSE) == layout.cells(ROWS) == layout.cells([]) == 0


def boxes(words: list[Found]) -> np.ndarray:
    return np.array([word.box for word in words]).reshape(-1, 4) @ [
        [1, 0, 1, 0],
        [0, 1, 0, 1],
        [0, 0, 1, 0],
        [0, 0, 0, 1],
    ]


def unread(pixels: np.ndarray, words: list[Found], ink: np.ndarray | None = None) -> float:
    """Share of the page's letters that lie in no word."""
    ink = (pixels < 128).astype(np.uint8) if ink is None else ink
    places = layout.letters(pixels, ink, boxes(words))
    return float(1 - layout.covered(places, boxes(words), pixels.shape).mean())


@pytest.mark.parametrize(("share", "expected"), [(1.0, 0.0), (0.75, 0.25), (0.0, 1.0)])
def test_unread_letters_are_counted(share, expected):
    """The letters outside all words are those that were not read."""
    assert unread(page(PROSE), PROSE[: round(share * len(PROSE))]) == pytest.approx(expected)


def test_a_page_without_ink_has_no_letters():
    """Nothing is unread where nothing is written."""
    assert len(layout.letters(np.full((50, 50), 255, np.uint8), np.zeros((50, 50), np.uint8), boxes([]))) == 0


def test_texture_is_not_unread():
    """Specks a quarter as high as the words, and faint shapes as high as they are, are no letters that were missed."""
    specks = page(PROSE)
    specks[300:390:10, 20:1100:10] = 0
    specks[300:394:10, 21:1100:10] = 0
    assert unread(specks, PROSE) == 0
    photograph = page(PROSE)
    for left in range(20, 1100, 20):
        photograph[300:316, left : left + 8] = 150
    assert unread(photograph, PROSE, ink=(photograph < 200).astype(np.uint8)) == 0


def test_light_letters_on_a_dark_page_are_letters():
    """Where the ink is light, letters outside all words are unread as well."""
    ink = (page(PROSE) < 128).astype(np.uint8)
    assert unread(255 - page(PROSE), PROSE[:48], ink=ink) == pytest.approx(0.5)
