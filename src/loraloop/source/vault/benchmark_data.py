"""Pictures with known text to examine OCR on, in two halves: one to tune on, one that is held out.

The halves share no face, no size of letters, no noise deviation, no angle, no JPEG quality, no resolution, no seed and,
but for the commonest words, no vocabulary. Settings of the preprocessing and of the layout choice were tuned on
:data:`TUNE` alone; figures that are reported are those of :data:`HELD_OUT`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar, get_args

import numpy as np
from numpy.random import Generator

from loraloop.source.vault import degrade, documents, drawing, fonts, safe, screen
from loraloop.source.vault.degrade import Pixels
from loraloop.source.vault.prose import FIRST, SECOND, Prose, Vocabulary

T = TypeVar("T")

KINDS: tuple[drawing.Look, ...] = get_args(drawing.Look)
LAYOUTS: tuple[documents.Layout, ...] = get_args(documents.Layout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Half:
    """One half of the test set.

    Attributes:
        style: Faces and sizes of letters, in pixels.
        noise: Standard deviations of the noise, in grey levels.
        degrees: Angles of turned pictures, either way.
        qualities: JPEG qualities.
        resolutions: Dots per inch of documents.
        greys: Grey levels of ink that is printed in black dots.
        shares: Shares of the resolution that screens and previews keep.
    """

    name: str
    seed: int
    style: drawing.Style
    noise: Sequence[float]
    degrees: Sequence[float]
    qualities: Sequence[int]
    resolutions: Sequence[int]
    greys: Sequence[int]
    shares: Sequence[float]
    vocabulary: Vocabulary


TUNE = Half(
    name="tune",
    seed=11,
    style=drawing.Style(fonts.PLAIN + fonts.MORE, (18, 20, 22, 26), (10, 12)),
    noise=(8.0, 12.0, 16.0),
    degrees=(1.5, 2.5, 4.0, 5.0),
    qualities=(15, 25, 50, 70),
    resolutions=(150, 180),
    greys=(60, 90),
    shares=(0.6, 0.7),
    vocabulary=FIRST,
)
HELD_OUT = Half(
    name="held out",
    seed=23,
    style=drawing.Style(fonts.OTHERS, (17, 19, 21, 25), (11, 13)),
    noise=(10.0, 14.0, 18.0),
    degrees=(2.0, 3.0, 4.5, 6.0),
    qualities=(18, 30, 45, 60),
    resolutions=(160, 200),
    greys=(75, 105),
    shares=(0.55, 0.65),
    vocabulary=SECOND,
)


@dataclass(frozen=True, slots=True)
class Case:
    """A picture to read: RGB or grey pixels, its kind (a look or a layout) and its text."""

    kind: str
    pixels: Pixels
    text: str


def case(half: Half, index: int) -> Case:
    """The degraded picture number ``index`` of ``half``: kinds in turn, every other round a vault, else plain lines."""
    kind = KINDS[index % len(KINDS)]
    if index // len(KINDS) % 2:
        vault = drawing.draw(half.seed, index, kind, half.style)
        return Case(kind, vault.pixels, vault.text)
    rng = np.random.default_rng([half.seed, index])
    return _lines(kind, half, rng)


def document(half: Half, index: int) -> Case:
    """The office page number ``index`` of ``half``: layouts in turn, and what became of the page in turn.

    A page is as printed, scanned, printed in black dots as a fax, or a screen's small copy of it.
    """
    layout = LAYOUTS[index % len(LAYOUTS)]
    rng = np.random.default_rng([half.seed, 1, index])
    made = documents.compose(layout, Prose(half.vocabulary, rng), half.style.faces, _one(half.resolutions, rng), rng)
    damage = (_unharmed, _scanned, _faxed, _shrunk)[(index + index // len(LAYOUTS)) % 4]
    return Case(layout, damage(made.pixels, half, rng), made.text)


def _lines(kind: drawing.Look, half: Half, rng: Generator) -> Case:
    """Sentences on plain ground, damaged as ``kind`` says with the half's own strengths."""
    size = _one(half.style.small if kind in {"small", "screenshot"} else half.style.sizes, rng)
    font = fonts.font(half.style.faces, int(rng.integers(1 << 16)), size)
    dark = kind == "dark" or (kind == "screenshot" and bool(rng.integers(2)))
    text = textwrap.fill(Prose(half.vocabulary, rng).paragraph(6), int(rng.integers(44, 64)))
    note = _note(text, font, size, dark, rng)
    if kind == "screenshot":
        return Case(kind, screen.around(note, dark, font, size, rng), screen.text(text))
    if kind == "keypad":
        return Case(kind, safe.with_keys(note, font, size, rng), f"{text}\n{safe.KEYS}")
    return Case(kind, _damaged(note, kind, half, rng), text)


def _note(text: str, font: fonts.Font, size: int, dark: bool, rng: Generator) -> Pixels:
    from PIL import Image, ImageDraw

    lines = text.split("\n")
    step = round(rng.uniform(1.3, 1.7) * size)
    width, height = round(max(map(font.getlength, lines))) + 3 * size, step * len(lines) + 2 * size
    paper, ink = (int(rng.integers(228, 256)), int(rng.integers(0, 60)))
    if dark:
        paper, ink = (int(rng.integers(12, 44)), int(rng.integers(190, 250)))
    image = Image.new("RGB", (width, height), (paper,) * 3)
    canvas = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        canvas.text((1.5 * size, size + number * step), line, fill=(ink,) * 3, font=font)
    return np.asarray(image)


def _damaged(note: Pixels, kind: drawing.Look, half: Half, rng: Generator) -> Pixels:
    if kind == "noisy":
        grainy = degrade.noise(degrade.fade(note, rng), _one(half.noise, rng), rng)
        return degrade.jpeg(grainy, _one(half.qualities[2:], rng))
    if kind == "rotated":
        return degrade.rotate(note, float(rng.choice([-1, 1])) * _one(half.degrees, rng))
    if kind == "gradient":
        return degrade.shade(note, rng)
    if kind == "jpeg":
        return degrade.jpeg(note, _one(half.qualities[:2], rng))
    if kind == "perspective":
        return degrade.perspective(note, 0.04, rng)
    return note


def _scanned(page: Pixels, half: Half, rng: Generator) -> Pixels:
    """A little askew, out of focus, grainy, unevenly lit and compressed, as from a flatbed scanner."""
    page = degrade.rotate(page, float(rng.uniform(-1, 1)))
    page = degrade.blur(page, rng.uniform(0.4, 0.8))
    page = degrade.shade(page[..., None], rng)[..., 0]
    return degrade.jpeg(degrade.noise(page, _one(half.noise, rng) / 2, rng), _one(half.qualities[2:], rng))


def _unharmed(page: Pixels, half: Half, rng: Generator) -> Pixels:
    return page


def _faxed(page: Pixels, half: Half, rng: Generator) -> Pixels:
    return degrade.jpeg(degrade.dither(page, _one(half.greys, rng), float(rng.uniform(1.1, 1.4))), 90)


def _shrunk(page: Pixels, half: Half, rng: Generator) -> Pixels:
    return degrade.jpeg(degrade.coarse(page, _one(half.shares, rng)), _one(half.qualities[2:], rng))


def _one(choices: Sequence[T], rng: Generator) -> T:
    return choices[int(rng.integers(len(choices)))]
