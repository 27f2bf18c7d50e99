"""Transparent pictures."""

import pytest
from PIL import Image

from loraloop.core.transparency import opaque

CLEAR = (0, 0, 0, 0)


def picture(*marks: tuple[int, int, int, int]) -> Image.Image:
    """A clear picture with a pixel of each colour."""
    made = Image.new("RGBA", (4, 1), CLEAR)
    for place, mark in enumerate(marks):
        made.putpixel((place, 0), mark)
    return made


@pytest.mark.parametrize(
    ("marks", "seen"),
    [
        (((0, 0, 0, 255),), [(0, 0, 0), (255, 255, 255)]),
        (((255, 255, 255, 255),), [(255, 255, 255), (0, 0, 0)]),
        (((255, 255, 255, 255), (0, 0, 0, 255)), [(255, 255, 255), (0, 0, 0)]),
        ((), [(255, 255, 255), (255, 255, 255)]),
    ],
)
def test_what_is_drawn_on_nothing_is_seen(marks, seen):
    """Dark words lie on white, white words alone lie on black, and a picture of nothing is white."""
    made = opaque(picture(*marks))
    assert [made.getpixel((place, 0)) for place in (0, 1)] == seen


def test_a_picture_without_transparency_is_left_alone():
    """Nothing is done to an opaque picture."""
    made = Image.new("L", (2, 2), 255)
    assert opaque(made) is made
