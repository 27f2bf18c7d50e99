"""Which of Tesseract's page segmentation modes suits a page: columns of prose, rows of cells, or scattered text.

Mode 3 finds columns and reads them one after the other, which is right for prose. Where short texts stand side by side
(tables, forms, receipts) it may take them for columns too, and modes 4 and 6 read them row by row. Modes are tried in
turn until one leaves no such cells apart and no letters unread; of those that read the most, the best in order counts.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from loraloop.ocr.engines import Engine, Found, late
from loraloop.ocr.image import Pixels

COLUMNS, ROWS, BLOCK, SCATTERED = 3, 4, 6, 11  # Tesseract's --psm
CELL_WORDS = 3.5  # lines side by side that have fewer words on average are cells, not columns
CELLS = 0.2  # share of words in such lines from which a page counts as rows of cells
UNREAD = 0.1  # share of letters outside all words from which other modes are tried
CLOSE = 0.97  # modes that read this share of the most are judged by their order alone


def read(engine: Engine, pixels: Pixels, seconds: float) -> tuple[int, list[Found]]:
    """Read a page in the mode that suits it.

    Returns:
        The mode and the words in its order.

    Raises:
        UnreadableError: There was not enough time for all the modes that were tried.
    """
    end = time.monotonic() + seconds
    readings: dict[int, list[Found]] = {}
    for mode in (COLUMNS, ROWS, BLOCK, SCATTERED):
        if (left := end - time.monotonic()) <= 0:
            raise late(seconds)
        readings[mode] = engine.words(pixels, mode, left)
        if cells(readings[mode]) <= CELLS and unread(pixels, readings[mode]) <= UNREAD:
            break
    most = max(map(weight, readings.values()))
    best = min((mode for mode in readings if weight(readings[mode]) >= CLOSE * most), key=lambda m: cells(readings[m]))
    return best, readings[best]


def weight(words: Sequence[Found]) -> float:
    """How many letters were read, each counted by its word's confidence."""
    return sum(len(word.text) * word.confidence for word in words)


def cells(words: Sequence[Found]) -> float:
    """Share of the words in lines that have another line beside them, where these lines are short; else 0.0."""
    if not words:
        return 0.0
    numbers = np.unique([word.line for word in words], return_inverse=True)[1]
    lines = [_bounds([word for word, at in zip(words, numbers, strict=True) if at == line]) for line in set(numbers)]
    left, top, right, bottom = np.array(lines).T
    overlap = np.minimum(bottom[:, None], bottom) - np.maximum(top[:, None], top)
    level = overlap > 0.5 * np.minimum(bottom - top, (bottom - top)[:, None])
    apart = (right[:, None] <= left) | (left[:, None] >= right)
    beside = (level & apart).any(axis=1)
    counts = np.bincount(numbers)
    if not beside.any() or counts[beside].mean() >= CELL_WORDS:
        return 0.0
    return float(counts[beside].sum() / len(words))


def unread(pixels: Pixels, words: Sequence[Found]) -> float:
    """Share of the letters on a page that lie in no word."""
    import cv2

    ink = cv2.threshold(pixels, 0, 255, cv2.THRESH_BINARY_INV | cv2.THRESH_OTSU)[1]
    _, _, stats, centres = cv2.connectedComponentsWithStats(ink)
    heights, widths = stats[1:, cv2.CC_STAT_HEIGHT], stats[1:, cv2.CC_STAT_WIDTH]
    letters = (heights >= 8) & (heights <= 80) & (widths <= 4 * heights) & (heights <= 8 * widths)
    if not letters.any():
        return 0.0
    covered = np.zeros(pixels.shape, bool)
    for left, top, width, height in (word.box for word in words):
        covered[top : top + height, left : left + width] = True
    columns, rows = centres[1:][letters].astype(int).T
    return float(1 - covered[rows, columns].mean())


def _bounds(words: Sequence[Found]) -> tuple[int, int, int, int]:
    left, top, width, height = np.array([word.box for word in words]).T
    return int(left.min()), int(top.min()), int((left + width).max()), int((top + height).max())
