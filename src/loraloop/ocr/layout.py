"""What a reading tells of itself: how many words are likely right, which letters it has, whether cells fell apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from loraloop.ocr.engines import Found
from loraloop.ocr.image import Pixels

Boxes = NDArray[np.int64]
"""Left, top, right and bottom of words, a row each."""
Places = NDArray[np.int64]
"""Columns and rows of pixels, a row (x, y) each."""

SURE = 97.0  # Tesseract's confidence in words that are right
CELL_WORDS = 3.5  # lines side by side that have fewer words on average are cells, not columns
LETTER = (0.35, 2.0)  # heights of letters, in heights of a median word
CONTRAST = 0.6  # least contrast of a letter, in that of a median one; a photograph's texture has less
MOST_MISSED = 0.8  # more would make an estimate of what is missing meaningless


def likely(words: Sequence[Found]) -> float:
    """How many of the words are right, as far as their confidence tells.

    On real and made pages the share of right words grows with about the third power of the confidence; marks without a
    letter or digit, such as ``|`` for a ruled line, are hardly ever words of the page.
    """
    return sum(_right(word) for word in words if any(letter.isalnum() for letter in word.text))


def likely_letters(words: Sequence[Found]) -> float:
    """How many letters and digits stand in words that are likely right.

    They are the same whether a reading parts ``324.70`` into two words or not, so readings are compared by them.
    """
    return sum(_right(word) * sum(letter.isalnum() for letter in word.text) for word in words)


def estimate(words: Sequence[Found], missed: float, most: float) -> float:
    """The word F1 to expect: likely words against the words found and those that the page is likely to have.

    Args:
        words: A reading.
        missed: Share of the page's letters that lie in none of its words.
        most: The most likely letters of any reading of the page.
    """
    if not words:
        return float(most == 0 and missed == 0)  # a blank page has been read
    right, letters = likely(words), likely_letters(words)
    found = right * most / letters if letters else 0.0
    return 2 * right / (len(words) + max(found, len(words) / (1 - min(missed, MOST_MISSED))))


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


def letters(page: Pixels, ink: Pixels, boxes: Boxes) -> Places:
    """Where the letters of a page lie, one row (x, y) each.

    Args:
        page: In grey, as decoded.
        ink: Not zero where the page has ink; dark letters or light ones.
        boxes: Left, top, right and bottom of the words of a reading: letters are about as high as these.
    """
    import cv2

    _, _, stats, centres = cv2.connectedComponentsWithStats(ink)
    heights, widths = stats[1:, cv2.CC_STAT_HEIGHT], stats[1:, cv2.CC_STAT_WIDTH]
    usual = float(np.median(boxes[:, 3] - boxes[:, 1])) if len(boxes) else 24.0
    low, high = LETTER[0] * usual, LETTER[1] * usual
    like = (heights >= max(4, low)) & (heights <= high) & (widths <= 4 * heights) & (heights <= 8 * widths)
    places = centres[1:][like].astype(np.int64)
    window = np.ones((max(3, round(usual / 2)),) * 2, np.uint8)
    spans = cv2.morphologyEx(page, cv2.MORPH_DILATE, window).astype(int) - cv2.erode(page, window)
    contrasts = spans[places[:, 1], places[:, 0]]
    read = contrasts[covered(places, boxes, page.shape)]
    return places[contrasts >= CONTRAST * np.median(read if len(read) else contrasts)] if len(places) else places


def covered(places: Places, boxes: Boxes, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of the places lie in a box."""
    inside = np.zeros(shape, bool)
    for left, top, right, bottom in boxes:
        inside[top:bottom, left:right] = True
    return inside[places[:, 1], places[:, 0]]


def _right(word: Found) -> float:
    return min(1.0, word.confidence / SURE) ** 3


def _bounds(words: Sequence[Found]) -> tuple[int, int, int, int]:
    left, top, width, height = np.array([word.box for word in words]).T
    return int(left.min()), int(top.min()), int((left + width).max()), int((top + height).max())
