"""How a page is read: how prepared, which way up, and in which of Tesseract's page segmentation modes.

Most pages are read once: prepared, in the first mode. A reading that does not look right is followed by others, and the
one with the most likely words counts. Jagged pages, such as faxes, are read far better when they are smoothed a little,
and pages that lie on their side or head are turned. Mode 3 finds columns and reads them one after the other, which is
right for prose; where short texts stand side by side (tables, forms, receipts) modes 4 and 6 read them row by row.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from loraloop.ocr import gaps, layout
from loraloop.ocr.engines import Engine, Found, LateError
from loraloop.ocr.image import Pixels
from loraloop.ocr.preprocess import Prepared, Steps, prepare

COLUMNS, ROWS, BLOCK, SCATTERED = 3, 4, 6, 11  # Tesseract's --psm
AUTO = (COLUMNS, ROWS, BLOCK, SCATTERED)
GOOD = 0.93  # expected word F1 from which a page is not smoothed
ENOUGH = 0.9  # expected word F1 from which no other modes are tried: they may mix the order of the lines
TURNED = 0.5  # word F1 to expect of the words found alone, below which a page may lie on its side or head
MISSED = 0.03  # share of unread letters up to which other modes could not find more words
CLEARLY = 0.25  # expected word F1 by which a turned page is read better than the page as it is
CELLS = 0.2  # share of words in cells that were torn apart from which other modes are tried
CLOSE = 0.98  # the first reading that is expected to be this near to the best one counts
TORN = 0.97  # what a reading with torn cells, or with columns torn into scattered lines, is worth
SOFT = 0.06  # deviation of the smoothing, in heights of a letter


class Clock:
    """Processor time that is left to a page; a busy machine does not make it shorter.

    Args:
        seconds: Of this process and of the programs that it started and that have ended.
    """

    def __init__(self, seconds: float) -> None:
        self._end = _used() + seconds

    def left(self) -> float:
        """Seconds left; not positive when the time is up."""
        return self._end - _used()


@dataclass(frozen=True)
class Reading:
    """A page as it was read once."""

    prepared: Prepared
    mode: int
    words: list[Found]

    @cached_property
    def unread(self) -> float:
        """See :func:`layout.unread`."""
        return layout.unread(self.prepared.pixels, self.words)

    @cached_property
    def cells(self) -> float:
        """See :func:`layout.cells`."""
        return layout.cells(self.words)

    @cached_property
    def likely(self) -> float:
        """See :func:`layout.likely`."""
        return layout.likely(self.words)


class Attempts:
    """The readings of one page.

    Args:
        engine: Reads them.
        page: The page as decoded.
        steps: How it may be prepared.
        clock: When it says so, the best reading so far counts.
    """

    def __init__(self, engine: Engine, page: Pixels, steps: Steps, clock: Clock) -> None:
        self._engine, self._page, self._steps, self._clock = engine, page, steps, clock
        self._readings: list[Reading] = []

    def read(self, modes: Sequence[int]) -> Reading:
        """Read the page in the first mode and, where that does not look right, in other ways.

        Args:
            modes: Page segmentation modes; with a single one the page may still be turned.

        Raises:
            LateError: There was not enough time for one reading.
        """
        first, *others = modes
        self._try(prepare(self._page, self._steps), first)
        if others and self._expected() < GOOD:
            for view in _smoothed(self._page, self._readings[0].prepared.letter):
                self._try(view, first)
        if all(layout.estimate(one.words, 0.0, one.likely) < TURNED for one in self._readings):
            self._turn(first)
        best = self._best().prepared
        for mode in others:
            found = self._best()
            if (self._expected() >= ENOUGH or found.unread <= MISSED) and found.cells <= CELLS:
                break
            self._try(best, mode)
        return self._best()

    def _turn(self, mode: int) -> None:
        """Read the page turned; readings that are not clearly better than those of the page as it is do not count."""
        before, expected = len(self._readings), self._expected()
        for view in _turned(self._page, self._steps):
            self._try(view, mode)
        if self._expected() < expected + CLEARLY:
            del self._readings[before:]

    def _try(self, view: Prepared, mode: int) -> None:
        if self._readings and self._clock.left() <= 0:
            return
        try:
            words = gaps.part(self._engine.words(view.pixels, mode, self._clock.left()), view.pixels)
        except LateError:
            if not self._readings:
                raise
            return
        self._readings.append(Reading(view, mode, words))

    def _expected(self) -> float:
        return max(self._estimates())

    def _best(self) -> Reading:
        if len(self._readings) == 1:
            return self._readings[0]
        estimates = zip(self._readings, self._estimates(), strict=True)
        worth = [value * (TORN if one.cells > CELLS else 1.0) for one, value in estimates]
        return next(one for one, value in zip(self._readings, worth, strict=True) if value >= CLOSE * max(worth))

    def _estimates(self) -> list[float]:
        most = max(one.likely for one in self._readings)
        return [layout.estimate(one.words, one.unread, most) for one in self._readings]


def _smoothed(page: Pixels, letter: float) -> Iterator[Prepared]:
    """The page in grey without jags, then without specks too, and otherwise as it is."""
    import cv2

    deviation = max(0.5, SOFT * letter)
    for name, source in (("soften", page), ("despeckle", cv2.medianBlur(page, 3))):
        pixels = cast("Pixels", cv2.GaussianBlur(source, (0, 0), deviation))
        yield Prepared(pixels, ("gray", name), np.eye(3)[:2], letter)


def _turned(page: Pixels, steps: Steps) -> Iterator[Prepared]:
    """The page turned by 180, 90 and 270 degrees counter-clockwise."""
    height, width = page.shape
    turns = {
        2: [[-1, 0, width], [0, -1, height], [0, 0, 1]],
        1: [[0, 1, 0], [-1, 0, width], [0, 0, 1]],
        3: [[0, -1, height], [1, 0, 0], [0, 0, 1]],
    }
    for quarters, matrix in turns.items():
        made = prepare(np.ascontiguousarray(np.rot90(page, quarters)), steps)
        yield replace(made, steps=(*made.steps, f"turn {90 * quarters}"), matrix=made.matrix @ np.array(matrix))


def _used() -> float:
    return sum(os.times()[:4])
