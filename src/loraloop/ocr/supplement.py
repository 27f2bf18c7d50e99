"""The words of a page that was read in several ways: the best reading without noise, and what others alone read.

Noise is what a ruled line or a picture leaves: marks without a letter or digit, of low confidence. Words with letters
stay, however unsure: most of them are nearly right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from loraloop.ocr.engines import Found
from loraloop.ocr.layout import Boxes
from loraloop.ocr.preprocess import Box

MARK = 80.0  # confidence below which a mark without letter or digit is hardly ever one of the page
SURE = 90.0  # confidence from which a word that another reading alone has is taken
FREE = 0.2  # share of such a word's box that may lie in words that are there


def supplemented(
    words: Sequence[Found],
    boxes: Boxes,
    others: Iterable[tuple[Sequence[Found], Boxes]],
    placed: Callable[[Boxes], list[Box]],
) -> list[Found]:
    """The words of the best reading, less its noise, with those of others where it has none.

    Args:
        words: Of the best reading.
        boxes: Theirs, on the page as decoded.
        others: Words and boxes of the other readings, the better ones first.
        placed: Turns boxes on the page as decoded into those of the best reading.
    """
    sound = [index for index, word in enumerate(words) if not _noise(word)]
    if not sound:
        return list(words)
    there, taken = [words[index] for index in sound], boxes[sound]
    middles, first = _middles(taken), list(dict.fromkeys(word.line for word in there))
    lines = [(first.index(word.line), 0) for word in there]
    for found, places in others:
        new = [index for index in _free(places, taken) if found[index].confidence >= SURE and _lettered(found[index])]
        if not new:
            continue
        there += [replace(found[index], box=box) for index, box in zip(new, placed(places[new]), strict=True)]
        lines += _beside([found[index].line for index in new], _middles(places[new]), middles, lines)
        taken = np.vstack([taken, places[new]])
    if len(there) == len(sound):
        return there
    numbers = {line: number for number, line in enumerate(sorted(set(lines)))}
    order = sorted(range(len(there)), key=lambda index: lines[index])
    return [replace(there[index], line=numbers[lines[index]]) for index in order]


def _noise(word: Found) -> bool:
    return word.confidence < MARK and not _lettered(word)


def _lettered(word: Found) -> bool:
    return any(letter.isalnum() for letter in word.text)


def _free(places: Boxes, taken: Boxes) -> NDArray[np.int64]:
    """Which of the places hardly lie in those that are taken."""
    low, high = np.maximum(places[:, None, :2], taken[:, :2]), np.minimum(places[:, None, 2:], taken[:, 2:])
    shared = (high - low).clip(0).prod(axis=2).sum(axis=1)
    return np.flatnonzero(shared <= FREE * (places[:, 2:] - places[:, :2]).prod(axis=1))


def _beside(
    numbers: Sequence[int], middles: NDArray[np.float64], known: NDArray[np.float64], lines: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Lines for new words: those of one line stand together, after the line of the known word next to the first."""
    last = max(line[1] for line in lines)
    placed: dict[int, tuple[int, int]] = {}
    for number, middle in zip(numbers, middles, strict=True):
        if number not in placed:
            nearest = int(np.abs(known - middle).sum(axis=1).argmin())
            placed[number] = (lines[nearest][0], last + 1 + len(placed))
    return [placed[number] for number in numbers]


def _middles(boxes: Boxes) -> NDArray[np.float64]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2
