"""Words on coloured boxes in grey pictures."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from loraloop.ocr.colour import grey
from loraloop.ocr.tesseract import Tesseract

GROUND = (244, 244, 244)
COLOURS = {
    "blue": (51, 122, 183),
    "orange": (240, 173, 78),
    "red": (217, 83, 79),
    "green": (92, 184, 92),
    "grey": (119, 119, 119),
}
FONT = ImageFont.load_default(26)


def dialog(*boxes: tuple[int, int, int], ink: str = "white", radius: int = 0) -> Image.Image:
    """A question and three buttons."""
    picture = Image.new("RGB", (620, 240), GROUND)
    canvas = ImageDraw.Draw(picture)
    canvas.text((20, 15), "Delete this account?", font=FONT, fill=(20, 20, 20))
    for place, (colour, word) in enumerate(zip(boxes, ("Cancel", "Confirm", "Later"), strict=True)):
        left = 20 + 200 * place
        canvas.rounded_rectangle((left, 90, left + 170, 150), radius, fill=colour)
        canvas.text((left + 30, 100), word, font=FONT, fill=ink)
    return picture


@pytest.mark.parametrize("name", COLOURS)
@pytest.mark.parametrize("radius", [0, 14])
def test_light_letters_on_a_box_become_dark_letters_on_light(name, radius):
    """White letters on a button of any colour, square or round, become 100 levels darker than the button."""
    made = grey(np.asarray(dialog(*[COLOURS[name]] * 3, radius=radius)))[95:145, 30:180]
    assert np.median(made) - made.min() > 100
    assert made.max() <= np.median(made) + 40


def test_dark_letters_on_a_box_keep_their_luminance():
    """Black letters on yellow or light blue are dark on light as they are."""
    picture = dialog((250, 220, 60), (150, 200, 250), (200, 250, 200), ink="black")
    assert np.array_equal(grey(np.asarray(picture)), np.asarray(picture.convert("L")))


def test_letters_of_a_colour_like_the_box_in_luminance_are_told_apart():
    """Red letters on a green box of the same luminance stand out in the channel that is taken."""
    made = grey(np.asarray(dialog(*[(60, 170, 60)] * 3, ink=(255, 70, 100))))[95:145, 30:180]
    assert np.ptp(made) > 50


def test_joined_bold_letters_are_no_boxes():
    """A heading whose bold letters touch is left as it is."""
    picture = Image.new("L", (400, 100), 255)
    canvas = ImageDraw.Draw(picture)
    for place, letter in enumerate("thryrn"):
        canvas.text((20 + 14 * place, 20), letter, font=ImageFont.load_default(32), fill=0, stroke_width=2)
    assert np.array_equal(grey(np.asarray(picture)), np.asarray(picture))


def test_every_button_is_read(tmp_path):
    """All words on buttons of mixed colours are read by every mode."""
    dialog(COLOURS["red"], COLOURS["green"], COLOURS["grey"]).save(tmp_path / "a.png")
    dialog(*[COLOURS["orange"]] * 3, radius=14).save(tmp_path / "b.png")
    for psm in ("auto", 3, 6):
        for page in Tesseract(cache=None, psm=psm, workers=1).read(sorted(tmp_path.iterdir())):
            assert page.text == "Delete this account?\nCancel Confirm Later"
