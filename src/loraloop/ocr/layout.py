"""What a reading tells of itself: how many words are likely right, how much is unread, and whether cells fell apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from loraloop.ocr.engines import Found
from loraloop.ocr.image import Pixels

SURE = 97.0  # Tesseract's confidence in words that are right
CELL_WORDS = 3.5  # lines side by side that have fewer words on average are cells, not columns
LETTER = (0.35, 2.0)  # heights of letters, in heights of a median word
DARK = 110  # median grey below which a page is light on dark
MOST_UNREAD = 0.8  # more would make an estimate of what is missing meaningless


def likely(words: Sequence[Found]) -> float:
    """How many of the words are right, as far as their confidence tells.

    On real and made pages the share of right words grows with about the third power of the confidence; marks without a
    letter or digit, such as ``|`` for a ruled line, are hardly ever words of the page.
    """
    return sum(min(1.0, word.confidence / SURE) ** 3 for word in words if any(letter.isalnum() for letter in word.text))


def estimate(words: Sequence[Found], unread_share: float, most: float) -> float:
    """The word F1 to expect: likely words against the words found and those that the page is likely to have.

    Args:
        words: A reading.
        unread_share: What :func:`unread` gives for it.
        most: The most likely words of any reading of the page.
    """
    if not words:
        return float(most == 0 and unread_share == 0)  # a blank page has been read
    there = max(most, len(words) / (1 - min(unread_share, MOST_UNREAD)))
    return 2 * likely(words) / (len(words) + there)


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
    """Share of the letters on a page that lie in no word; letters are about as high as the words that were read."""
    import cv2

    dark = cv2.THRESH_BINARY if np.median(pixels) < DARK else cv2.THRESH_BINARY_INV
    ink = cv2.threshold(pixels, 0, 255, dark | cv2.THRESH_OTSU)[1]
    _, _, stats, centres = cv2.connectedComponentsWithStats(ink)
    heights, widths = stats[1:, cv2.CC_STAT_HEIGHT], stats[1:, cv2.CC_STAT_WIDTH]
    usual = float(np.median([word.box[3] for word in words])) if words else 24.0
    low, high = LETTER[0] * usual, LETTER[1] * usual
    letters = (heights >= low) & (heights <= high) & (widths <= 4 * heights) & (heights <= 8 * widths)
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
