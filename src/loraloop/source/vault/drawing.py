"""Synthetic vaults: a drawn safe with a plate of text, all of it spelled by 32 coin flips.

What the plate says is a function of the flips, so that flips -> text can be learned and every answer checked; how the
vault looks (font, size, colours, damage) is drawn from the seed alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import numpy as np
from numpy.random import Generator

from loraloop.source.vault import degrade, safe
from loraloop.source.vault.degrade import Pixels
from loraloop.source.vault.safe import Colour

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

Look = Literal["clean", "small", "dark", "noisy", "rotated", "gradient"]

FLIPS = 32
BANKS = (
    "Acorn", "Beacon", "Cedar", "Delta", "Ember", "Falcon", "Granite", "Harbor",
    "Island", "Juniper", "Keystone", "Lantern", "Meadow", "Northern", "Orchard", "Pioneer",
)  # fmt: skip
NOTES = (
    "Keep closed", "Gold inside", "Open at noon", "Ring twice", "Do not tilt", "Two keys", "Ask the guard",
    "Mind the cat", "No cookies", "Spare crown", "Love letters", "Old maps", "Quiet please", "Top secret",
    "Moon rocks", "Lunch money",
)  # fmt: skip
FACES = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif",
    "LiberationSans-Regular", "LiberationSans-Bold", "LiberationMono-Regular", "LiberationSerif-Regular",
)  # fmt: skip
FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts", "/Library/Fonts")
TRACKING = 0.12  # em between the letters of codes and flips, as on engraved plates
PLATE_WIDTH = 330  # pixels; a longer line makes it wider


@dataclass(frozen=True, slots=True)
class Vault:
    """A drawn vault: RGB pixels and the exact text on its plate."""

    pixels: Pixels
    text: str


def plate(flips: str) -> str:
    """The text of the vault that 32 flips spell.

    The first four flips choose the bank, the next four the note, and all of them (H=1, most significant first) the
    code in upper-case hexadecimal digits; the flips themselves stand on the last two lines.
    """
    code = f"{int(flips.translate(str.maketrans('HT', '10')), 2):08X}"
    groups = [flips[start : start + 4] for start in range(0, FLIPS, 4)]
    return "\n".join(
        (
            f"{BANKS[int(code[0], 16)]} Bank: {NOTES[int(code[1], 16)]}",
            f"Code {code[:4]}-{code[4:]}",
            " ".join(groups[:4]),
            " ".join(groups[4:]),
        )
    )


def draw(seed: int, index: int, look: Look) -> Vault:
    """Draw the vault number ``index``: the same arguments give the same pixels on one machine."""
    rng = np.random.default_rng([seed, index])
    text = plate("".join(rng.choice(["H", "T"], FLIPS)))
    dark = look == "dark"
    size = int(rng.integers(11, 14) if look == "small" else rng.integers(19, 29))
    font = _font(rng, size)
    label = _label(text, font, size, dark, rng)
    scene = safe.around(label, dark, rng)
    if look == "noisy":
        scene = degrade.jpeg(
            degrade.noise(degrade.fade(scene, rng), rng.uniform(8, 18), rng), int(rng.integers(40, 75))
        )
    elif look == "rotated":
        scene = degrade.rotate(scene, float(rng.choice([-1, 1]) * rng.uniform(1.5, 5)))
    elif look == "gradient":
        scene = degrade.shade(scene, rng)
    return Vault(scene, text)


@cache
def faces() -> tuple[str, ...]:
    """Font files found on this machine, in a fixed order; empty where there are none of the known ones."""
    found = {path.stem: str(path) for folder in FOLDERS for path in sorted(Path(folder).expanduser().rglob("*.ttf"))}
    return tuple(found[name] for name in FACES if name in found)


def _font(rng: Generator, size: int) -> FreeTypeFont | ImageFont:
    from PIL import ImageFont

    choice = int(rng.integers(1 << 16))
    return ImageFont.truetype(faces()[choice % len(faces())], size) if faces() else ImageFont.load_default(size)


def _label(text: str, font: FreeTypeFont | ImageFont, size: int, dark: bool, rng: Generator) -> Pixels:
    """The plate: dark letters on brass or paper, or glowing letters on a screen."""
    from PIL import Image, ImageDraw

    lines = text.split("\n")
    step = round(1.6 * size)
    spaced = [TRACKING * size if number > 0 else 0.0 for number in range(len(lines))]
    lengths = [font.getlength(line) + space * len(line) for line, space in zip(lines, spaced, strict=True)]
    width = max(PLATE_WIDTH, round(max(lengths)) + 4 * size)
    height = step * len(lines) + 2 * size
    ground: Colour = (24, 30, 34) if dark else cast("Colour", tuple(int(c) for c in rng.integers(226, 250, 3)))
    ink: Colour = (120, 240, 170) if dark else (26, 26, 34)
    image = Image.new("RGB", (width, height), ground)
    canvas = ImageDraw.Draw(image)
    for number, (line, space) in enumerate(zip(lines, spaced, strict=True)):
        left = 2.0 * size
        for letter in line:
            canvas.text((left, size + number * step), letter, fill=ink, font=font)
            left += font.getlength(letter) + space
    return np.asarray(image)
