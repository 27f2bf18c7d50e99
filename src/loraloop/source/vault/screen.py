"""The window of a program around a plate of text, as a screenshot shows it."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from loraloop.source.vault.degrade import Pixels
from loraloop.source.vault.fonts import Font

TITLE = "Vault"
BUTTONS = ("Open", "Cancel")
ACCENTS = ((38, 94, 190), (24, 120, 92), (150, 52, 88))


def around(label: Pixels, dark: bool, font: Font, size: int, rng: Generator) -> Pixels:
    """A window with a title bar, ``label`` as its content, a row of buttons and bars where other controls would be."""
    from PIL import Image, ImageDraw

    height, width = label.shape[:2]
    bar, foot, margin = 3 * size, 4 * size, 2 * size
    desk = (46, 52, 64) if dark else (214, 222, 232)
    window = (36, 40, 48) if dark else (244, 244, 246)
    ink = (226, 228, 232) if dark else (32, 34, 40)
    image = Image.new("RGB", (width + 2 * margin, bar + height + foot + 2 * margin), desk)
    canvas = ImageDraw.Draw(image)
    top, right, bottom = margin + bar, margin + width, margin + bar + height + foot
    canvas.rounded_rectangle((margin, margin, right, bottom), size // 2, fill=window)
    canvas.text((margin + size, margin + size // 2), TITLE, fill=ink, font=font)
    accent = ACCENTS[int(rng.integers(len(ACCENTS)))]
    left = margin + size
    for number, name in enumerate(BUTTONS):
        wide = round(font.getlength(name)) + 2 * size
        place = (left, top + height + size // 2, left + wide, top + height + round(3.2 * size))
        canvas.rounded_rectangle(place, size // 3, fill=accent if number == 0 else tuple(c - 20 for c in window))
        canvas.text((left + size, place[1] + size // 2), name, fill="white" if number == 0 else ink, font=font)
        left += wide + size
    pixels = np.array(image)
    pixels[top : top + height, margin:right] = label
    return pixels


def text(plate: str) -> str:
    """What is to be read on the window around ``plate``."""
    return f"{TITLE}\n{plate}\n{' '.join(BUTTONS)}"
