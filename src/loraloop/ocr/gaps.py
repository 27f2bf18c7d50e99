"""Words that the recogniser joined though a gap parts them: ``13 A`` in a table's cell is read as ``13A``.

Only a figure before a capital is parted: elsewhere, such as in typewriting, wide gaps between letters are usual.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from loraloop.ocr.engines import Found
from loraloop.ocr.image import Pixels

WIDE = 0.33  # width of a gap between words, in heights of the word
WIDER = 2.0  # the same gap in widths of the word's other gaps
LOWEST = 8  # pixels of a word whose gaps can be measured
INK = 128  # grey level below which a pixel is ink
_BOUNDARY = re.compile(r"(?<=[0-9])(?=[A-Z])")


def part(words: Iterable[Found], pixels: Pixels) -> list[Found]:
    """The words, those with a wide gap between a figure and a capital as two."""
    return [piece for word in words for piece in _pieces(word, pixels)]


def _pieces(word: Found, pixels: Pixels) -> Iterator[Found]:
    left, top, width, height = word.box
    places = [found.start() for found in _BOUNDARY.finditer(word.text)] if height >= LOWEST else []
    ink = (pixels[top : top + height, left : left + width] < INK).any(axis=0) if places else np.zeros(0, bool)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], ink, [False]]).astype(np.int8)))
    begins, ends = edges[::2], edges[1::2]
    if len(begins) != len(word.text):  # letters touch, or consist of several strokes
        places = []
    gaps = begins[1:] - ends[:-1]
    start, at = 0, 0
    for place in places:
        others = np.delete(gaps, place - 1)
        if gaps[place - 1] > max(WIDE * height, WIDER * float(np.median(others)) if len(others) else 0.0):
            yield replace(word, text=word.text[start:place], box=(left + at, top, int(ends[place - 1]) - at, height))
            start, at = place, int(begins[place])
    yield replace(word, text=word.text[start:], box=(left + at, top, width - at, height))
