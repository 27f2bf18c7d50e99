"""How a page is read: how prepared, which way up, and in which of Tesseract's page segmentation modes.

Most pages are read once: prepared, in the first mode. A reading that leaves a doubt is followed by that of the plain
grey page and, where that is no better, by others; the one with the most likely words counts. Jagged pages, such as
faxes, are read far better when they are smoothed a little, and pages that lie on their side or head are turned. Mode 3
finds columns and reads them one after the other, which is right for prose; where short texts stand side by side
(tables, forms, receipts) modes 4 and 6 read them row by row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from loraloop.ocr import gaps, layout, supplement
from loraloop.ocr.engines import Engine, Found, LateError
from loraloop.ocr.image import Pixels
from loraloop.ocr.preprocess import Prepared, Steps, prepare

COLUMNS, ROWS, BLOCK, SCATTERED = 3, 4, 6, 11  # Tesseract's --psm
AUTO = (COLUMNS, ROWS, BLOCK, SCATTERED)
SOUND = 0.85  # expected word F1 from which a page that was read whole is not read again
MISSED = 0.03  # share of unread letters up to which another way could not find more words
CELLS = 0.2  # share of words in cells up to which the lines of a page are whole
POOR = 0.7  # expected word F1 below which other modes are tried though all letters are read
TURNED = 0.5  # word F1 to expect of the words found alone, below which a page may lie on its side or head
CLEARLY = 0.25  # expected word F1 by which a turned page is read better than the page as it is
SMOOTHED = 0.97  # what a smoothed page's readings are worth: letters without edges are taken for others, surely
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
    """A page as it was read once; ``letters`` tells where the page has letters, and is asked only when that matters."""

    prepared: Prepared
    mode: int
    words: list[Found]
    worth: float
    letters: Callable[[], layout.Places]

    @cached_property
    def cells(self) -> float:
        """See :func:`layout.cells`."""
        return layout.cells(self.words)

    @cached_property
    def likely(self) -> float:
        """See :func:`layout.likely_letters`."""
        return layout.likely_letters(self.words)

    @cached_property
    def unread(self) -> float:
        """Share of the letters that lie in no word."""
        places, boxes = self.letters(), self.boxes()
        return float(1 - layout.covered(places, boxes, self.prepared.ink.shape).mean()) if len(places) else 0.0

    @property
    def whole(self) -> bool:
        """Whether hardly a letter is unread and no cells are torn: other modes could not do better."""
        return self.unread <= MISSED and self.cells <= CELLS

    def boxes(self) -> layout.Boxes:
        """Where the words stand on the page as decoded."""
        return self.prepared.original(word.box for word in self.words)


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
        if others and not self._sound():
            seen = self._readings[0].prepared
            self._try(_plain(self._page, seen), first)
            for view in _smoothed(self._page, seen) if self._expected() < SOUND else ():
                self._try(view, first, SMOOTHED)
        if all(layout.estimate(one.words, 0.0, one.likely) < TURNED for one in self._readings):
            self._turn(first)
        best = self._best()
        for mode in others:
            if self._best().whole and self._expected() >= POOR:
                break
            self._try(best.prepared, mode, best.worth)
        if others and self._expected() < POOR:
            self._try(_plain(self._page, self._readings[0].prepared), BLOCK)
        return self._supplemented() if others else self._best()

    @cached_property
    def _letters(self) -> layout.Places:
        first = self._readings[0]
        return layout.letters(self._page, first.prepared.ink, first.boxes())

    def _sound(self) -> bool:
        return self._expected() >= SOUND and self._best().whole

    def _turn(self, mode: int) -> None:
        """Read the page turned; readings that are not clearly better than those of the page as it is do not count."""
        before, expected = len(self._readings), self._expected()
        for view in _turned(self._page, self._steps):
            self._try(view, mode)
        if self._expected() < expected + CLEARLY:
            del self._readings[before:]

    def _try(self, view: Prepared, mode: int, worth: float = 1.0) -> None:
        if self._readings and self._clock.left() <= 0:
            return
        try:
            words = gaps.part(self._engine.words(view.pixels, mode, self._clock.left()), view.pixels)
        except LateError:
            if not self._readings:
                raise
            return
        self._readings.append(Reading(view, mode, words, worth, lambda: self._letters))

    def _supplemented(self) -> Reading:
        """The best reading without its noise, with what only the others read, the next best first."""
        worths = self._worths()
        best, *others = (self._readings[at] for at in sorted(range(len(worths)), key=lambda at: -worths[at]))
        found = [(one.words, one.boxes()) for one in others]
        return replace(best, words=supplement.supplemented(best.words, best.boxes(), found, best.prepared.placed))

    def _expected(self) -> float:
        return max(self._estimates())

    def _best(self) -> Reading:
        return self._readings[int(np.argmax(self._worths()))]

    def _worths(self) -> list[float]:
        if len(self._readings) == 1:
            return [1.0]
        estimates = zip(self._estimates(), self._readings, strict=True)
        return [value * one.worth * (TORN if one.cells > CELLS else 1.0) for value, one in estimates]

    def _estimates(self) -> list[float]:
        most = max(one.likely for one in self._readings)
        return [layout.estimate(one.words, one.unread, most) for one in self._readings]


def _plain(page: Pixels, seen: Prepared) -> Prepared:
    return replace(seen, pixels=page, steps=("gray",), matrix=np.eye(3)[:2])


def _smoothed(page: Pixels, seen: Prepared) -> Iterator[Prepared]:
    """The page in grey without jags, then without specks too, and otherwise as it is."""
    import cv2

    deviation = max(0.5, SOFT * seen.letter)
    for name, source in (("soften", page), ("despeckle", cv2.medianBlur(page, 3))):
        pixels = cast("Pixels", cv2.GaussianBlur(source, (0, 0), deviation))
        yield replace(_plain(pixels, seen), steps=("gray", name))


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
        steps_done, upright = (*made.steps, f"turn {90 * quarters}"), np.rot90(made.ink, -quarters)
        yield replace(made, steps=steps_done, matrix=made.matrix @ np.array(matrix), ink=np.ascontiguousarray(upright))


def _used() -> float:
    return sum(os.times()[:4])
