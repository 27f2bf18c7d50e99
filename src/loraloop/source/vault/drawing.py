"""Synthetic vaults: a drawn safe with a plate of text, all of it spelled by 32 coin flips.

What the plate says is a function of the flips, so that flips -> text can be learned and every answer checked; how the
vault looks (font, size, colours, damage) is drawn from the seed alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.random import Generator

from loraloop.source.vault import degrade, fonts, safe, screen
from loraloop.source.vault.degrade import Pixels
from loraloop.source.vault.safe import Colour

Look = Literal["clean", "small", "dark", "noisy", "rotated", "gradient", "jpeg", "perspective", "screenshot", "keypad"]

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
TRACKING = 0.12  # em between the letters of codes and flips, as on engraved plates
PLATE_WIDTH = 330  # pixels; a longer line makes it wider


@dataclass(frozen=True, slots=True)
class Style:
    """What vaults are lettered in.

    Attributes:
        faces: Names of faces, of which those that the machine has are used.
        sizes: Heights of letters in pixels.
        small: The same for small letters, as on screens.
    """

    faces: Sequence[str]
    sizes: Sequence[int]
    small: Sequence[int]


PLAIN = Style(fonts.PLAIN, range(19, 29), range(11, 14))


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


def draw(seed: int, index: int, look: Look, style: Style = PLAIN) -> Vault:
    """Draw the vault number ``index``: the same arguments give the same pixels on one machine."""
    rng = np.random.default_rng([seed, index])
    text = plate("".join(rng.choice(["H", "T"], FLIPS)))
    dark = look == "dark"
    sizes = style.small if look in {"small", "screenshot"} else style.sizes
    size = int(sizes[int(rng.integers(len(sizes)))])
    font = fonts.font(style.faces, int(rng.integers(1 << 16)), size)
    if look == "screenshot":
        dark = bool(rng.integers(2))
        return Vault(screen.around(_label(text, font, size, dark, rng), dark, font, size, rng), screen.text(text))
    label = _label(text, font, size, dark, rng)
    if look == "keypad":
        return Vault(safe.with_keys(label, font, size, rng), f"{text}\n{safe.KEYS}")
    return Vault(_damaged(safe.around(label, dark, rng), look, rng), text)


def _damaged(scene: Pixels, look: Look, rng: Generator) -> Pixels:
    if look == "noisy":
        faint = degrade.noise(degrade.fade(scene, rng), rng.uniform(8, 18), rng)
        return degrade.jpeg(faint, int(rng.integers(40, 75)))
    if look == "rotated":
        return degrade.rotate(scene, float(rng.choice([-1, 1]) * rng.uniform(1.5, 5)))
    if look == "gradient":
        return degrade.shade(scene, rng)
    if look == "jpeg":
        return degrade.jpeg(scene, int(rng.integers(12, 30)))
    if look == "perspective":
        return degrade.perspective(scene, 0.04, rng)
    return scene


def _label(text: str, font: fonts.Font, size: int, dark: bool, rng: Generator) -> Pixels:
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
