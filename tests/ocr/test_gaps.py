"""Words that were joined across a gap."""

import numpy as np
import pytest

from loraloop.ocr.engines import Found
from loraloop.ocr.gaps import part


def drawn(text: str, gap: int, spaces: dict[int, int]) -> tuple[Found, np.ndarray]:
    """A word of letters 14 pixels wide and 28 high, ``gap`` pixels apart, or more after the letters in ``spaces``."""
    pixels = np.full((60, 400), 255, np.uint8)
    x = 20
    for place, _ in enumerate(text):
        pixels[16:44, x : x + 14] = 0
        end, x = x + 14, x + 14 + spaces.get(place, gap)
    return Found(text, 80.0, (20, 16, end - 20, 28), 3), pixels


def test_a_figure_and_a_capital_that_stand_apart_are_two_words():
    """A wide gap parts them; each has the box of its own ink, and both the confidence and the line of the whole."""
    word, pixels = drawn("13A", 3, {1: 12})
    assert part([word], pixels) == [
        Found("13", 80.0, (20, 16, 31, 28), 3),
        Found("A", 80.0, (63, 16, 14, 28), 3),
    ]


@pytest.mark.parametrize(
    ("text", "gap", "spaces"),
    [
        ("13A", 3, {}),  # a code
        ("13A", 12, {}),  # widely spaced throughout, as typewriting is
        ("abc", 3, {1: 12}),  # letters
        ("131", 3, {1: 12}),  # figures
    ],
)
def test_other_words_stay_whole(text, gap, spaces):
    """Even gaps, and wide ones that stand elsewhere than between a figure and a capital, part nothing."""
    word, pixels = drawn(text, gap, spaces)
    assert part([word], pixels) == [word]


def test_letters_that_touch_stay_whole():
    """Where strokes cannot be told apart, no gap can be measured."""
    word, pixels = drawn("13A", 0, {1: 12})
    assert part([word], pixels) == [word]
