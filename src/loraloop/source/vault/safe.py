"""The drawn safe around a plate of text."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from loraloop.source.vault.degrade import Pixels
from loraloop.source.vault.fonts import Font

Colour = tuple[int, int, int]
KEYS = "1 2 3\n4 5 6\n7 8 9"

BODIES: tuple[Colour, ...] = ((122, 139, 160), (128, 150, 138), (160, 140, 122), (142, 136, 158), (150, 150, 150))


def around(label: Pixels, dark: bool, rng: Generator) -> Pixels:
    """A scene with a safe (hinges, feet, a dial or a keypad, a wheel) that carries ``label`` as its plate."""
    height, width = label.shape[:2]
    unit = width // 30
    door = 13 * unit
    body = np.array(BODIES[int(rng.integers(len(BODIES)))], dtype=np.float64) * (0.30 if dark else 1.4)
    wall = (16, 18, 22) if dark else (236, 234, 228)
    total = (door + height + 5 * unit, width + 8 * unit)
    scene = np.full((*total, 3), wall, dtype=np.uint8)
    art = _Art(scene, np.clip(body, 0, 235), unit)
    art.body()
    centre = (total[1] // 2, 2 * unit + door // 2)
    if rng.integers(2):
        art.keypad((centre[0] - 8 * unit, centre[1]))
    else:
        art.dial((centre[0] - 8 * unit, centre[1]), float(rng.uniform(0, 360)))
    art.wheel((centre[0] + 8 * unit, centre[1]), int(rng.integers(3, 7)), float(rng.uniform(0, 360)))
    top, left = 2 * unit + door, 4 * unit
    scene[top : top + height, left : left + width] = label
    return scene


def with_keys(label: Pixels, font: Font, size: int, rng: Generator) -> Pixels:
    """A panel with ``label`` above a keypad whose keys can be read; they say :data:`KEYS`."""
    from PIL import Image, ImageDraw

    height, width = label.shape[:2]
    key, gap = 2 * size, size
    rows = [line.split() for line in KEYS.split("\n")]
    body = BODIES[int(rng.integers(len(BODIES)))]
    panel = Image.new("RGB", (width + 4 * size, height + (key + gap) * len(rows) + 4 * size), body)
    panel.paste(Image.fromarray(label), (2 * size, 2 * size))
    canvas = ImageDraw.Draw(panel)
    for row, names in enumerate(rows):
        top = height + 3 * size + row * (key + gap)
        for column, name in enumerate(names):
            left = panel.width // 2 + round((column - 1.5) * (key + gap)) + gap // 2
            canvas.rounded_rectangle((left, top, left + key, top + key), size // 3, fill=(238, 238, 236))
            canvas.text((left + key // 2, top + key // 2), name, fill=(20, 20, 24), font=font, anchor="mm")
    return np.asarray(panel)


class _Art:
    """Brush for one safe: soft tones of its body's colour, so that only the plate's letters are ink."""

    def __init__(self, scene: Pixels, colour: NDArray[np.float64], unit: int) -> None:
        self.scene, self.colour, self.unit = scene, colour, unit

    def tone(self, factor: float) -> Colour:
        red, green, blue = np.clip(self.colour * factor, 0, 255)
        return int(red), int(green), int(blue)

    def body(self) -> None:
        unit, (height, width) = self.unit, self.scene.shape[:2]
        for foot in (3 * unit, width - 6 * unit):
            self._box((foot, height - 2 * unit), (foot + 3 * unit, height - unit // 2), 0.9)
        self._box((unit, unit), (width - unit, height - unit - unit // 2), 0.9)
        self._box((2 * unit, 2 * unit), (width - 2 * unit, height - 2 * unit - unit // 2), 1.0)
        for hinge in (3 * unit, height - 7 * unit):
            self._box((unit // 2, hinge), (2 * unit - unit // 4, hinge + 3 * unit), 0.94)

    def dial(self, centre: tuple[int, int], degrees: float) -> None:
        radius = 5 * self.unit
        self._disc(centre, radius, 0.9)
        self._disc(centre, radius - self.unit // 3, 1.05)
        for tick in range(0, 360, 15):
            self._spoke(centre, radius * 0.78, radius * 0.95, degrees + tick, 0.9, 2)
        self._disc(centre, radius // 2, 0.92)
        self._spoke(centre, 0, radius * 0.5, degrees, 1.06, max(2, self.unit // 4))
        self._disc(centre, radius // 5, 1.02)

    def keypad(self, centre: tuple[int, int]) -> None:
        unit = self.unit
        self._box((centre[0] - 4 * unit, centre[1] - 5 * unit), (centre[0] + 4 * unit, centre[1] + 5 * unit), 0.92)
        for row in range(4):
            for column in range(3):
                key = (centre[0] + round((column - 1) * 2.4 * unit), centre[1] + round((row - 1.5) * 2.3 * unit))
                self._disc(key, round(0.92 * unit), 1.06)

    def wheel(self, centre: tuple[int, int], spokes: int, degrees: float) -> None:
        radius = 5 * self.unit
        self._disc(centre, radius, 0.9)
        self._disc(centre, radius - self.unit, 1.0)
        for spoke in range(spokes):
            self._spoke(centre, 0, radius * 0.92, degrees + spoke * 360 / spokes, 0.92, max(3, self.unit // 2))
        self._disc(centre, round(1.4 * self.unit), 0.94)
        self._disc(centre, round(0.7 * self.unit), 1.05)

    def _box(self, first: tuple[int, int], last: tuple[int, int], factor: float) -> None:
        import cv2

        cv2.rectangle(self.scene, first, last, self.tone(factor), -1, cv2.LINE_AA)

    def _disc(self, centre: tuple[int, int], radius: int, factor: float) -> None:
        import cv2

        cv2.circle(self.scene, centre, radius, self.tone(factor), -1, cv2.LINE_AA)

    def _spoke(
        self, centre: tuple[int, int], start: float, end: float, degrees: float, factor: float, width: int
    ) -> None:
        import cv2

        turn = np.array([np.cos(np.radians(degrees)), np.sin(np.radians(degrees))])
        first, last = (np.array(centre) + turn * start).round(), (np.array(centre) + turn * end).round()
        ends = [(int(point[0]), int(point[1])) for point in (first, last)]
        cv2.line(self.scene, ends[0], ends[1], self.tone(factor), width, cv2.LINE_AA)
