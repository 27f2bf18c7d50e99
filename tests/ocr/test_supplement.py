"""Noise that is left out of a page's words, and words of other readings that are added."""

import numpy as np
import pytest

from loraloop.ocr.engines import Found
from loraloop.ocr.supplement import supplemented


def word(text: str, left: int, top: int, line: int, confidence: float = 96.0) -> Found:
    return Found(text, confidence, (left, top, 40, 20), line)


def boxes(words: list[Found]) -> np.ndarray:
    made = [(left, top, left + width, top + height) for left, top, width, height in (one.box for one in words)]
    return np.array(made, np.int64).reshape(-1, 4)


def joined(best: list[Found], *others: list[Found]) -> list[Found]:
    def placed(places):
        return [(left + 5, top, right - left, bottom - top) for left, top, right, bottom in places.tolist()]

    return supplemented(best, boxes(best), [(one, boxes(one)) for one in others], placed)


TOP, BOTTOM = [word("Total", 0, 0, 7), word("24.70", 50, 0, 7)], [word("Thank", 0, 200, 3), word("you", 50, 200, 3)]


def test_sound_words_stay_as_they_are():
    """Without noise, and where others read nothing else, the best reading is returned unchanged."""
    assert joined([*TOP, *BOTTOM], TOP, BOTTOM) == [*TOP, *BOTTOM]


@pytest.mark.parametrize(
    ("noise", "stays"),
    [(("|", 75.0), False), (("hard", 5.0), True), (("-", 85.0), True)],
)
def test_marks_that_are_hardly_ever_right_are_left_out(noise, stays):
    """A mark that is not sure is left out; doubtful words, which are often nearly right, and sure marks stay."""
    text, confidence = noise
    assert ([text] == [one.text for one in joined([*TOP, word(text, 300, 0, 7, confidence)])[2:]]) is stays


def test_a_page_of_noise_alone_is_left():
    """Where nothing is sound, all words stay: their confidence tells what they are worth."""
    poor = [word("|", 0, 0, 0, 20.0)]
    assert joined(poor) == poor


def test_sure_words_that_others_alone_read_are_added_beside_the_nearest_line():
    """What only another reading has is a line of its own after the nearest one, placed on the best reading's page."""
    new = [word("12", 0, 40, 0), word("May", 50, 40, 0)]
    made = joined([*TOP, *BOTTOM], [*TOP, *new], new)
    assert [one.text for one in made] == ["Total", "24.70", "12", "May", "Thank", "you"]
    assert [one.line for one in made] == [0, 0, 1, 1, 2, 2]
    assert made[2].box == (5, 40, 40, 20)


def test_unsure_words_marks_and_words_over_others_are_not_added():
    """A word of another reading is added only when it is sure, has a letter and lies where the best has none."""
    other = [word("maybe", 300, 0, 0, 85.0), word("—", 400, 0, 0), word("Tota1", 20, 0, 0)]
    assert joined(TOP, other) == TOP
