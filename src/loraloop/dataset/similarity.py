"""Near-duplicate texts by MinHash over words (Broder, "On the resemblance and containment of documents", 1997)."""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

MIN_WORDS = 20
MIN_JACCARD = 0.8
_BANDS, _BAND = 20, 5
# Odd multipliers and offsets of a multiply-shift hash family; fixed, so that the groups do not depend on any seed.
_MULTIPLY, _OFFSET = np.random.default_rng(0).integers(2**63, size=(2, _BANDS * _BAND), dtype=np.uint64) * 2 + 1


def normalise(text: str) -> str:
    """``text`` after NFKC and case folding, without white space, punctuation and control characters."""
    return unicodedata.normalize("NFKC", text).casefold().translate(_DROP)


def near_duplicates(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose sets of words have a Jaccard similarity of at least 0.8, enough to connect each cluster.

    Texts of fewer than 20 different words are left alone: short ones, and sequences over a small alphabet, resemble
    each other by nature. Candidates share one of 20 bands of 5 minima (chance 0.9996 at similarity 0.8) and are then
    compared exactly, each with the first of its bucket and the one before it: the work is linear in the texts.

    Args:
        texts: Distinct texts; which pairs come out depends on their order, so pass them sorted.
    """
    words = {place: found for place, text in enumerate(texts) if len(found := _words(text)) >= MIN_WORDS}
    places = np.array(list(words), dtype=np.int64)
    minima = np.array([_minima(found) for found in words.values()], dtype=np.uint32).reshape(-1, _BANDS, _BAND)
    pairs: set[tuple[int, int]] = set()
    for band in range(_BANDS):
        pairs.update(_candidates(places, minima[:, band]))
    return ((a, b) for a, b in sorted(pairs) if _jaccard(words[a], words[b]) >= MIN_JACCARD)


def _candidates(places: NDArray[np.int64], minima: NDArray[np.uint32]) -> Iterator[tuple[int, int]]:
    """Each place with the first one that has equal minima, and with the one before it that has."""
    _, first, bucket = np.unique(minima, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(bucket, kind="stable")
    before, after = order[:-1], order[1:]
    same = bucket[before] == bucket[after]
    yield from zip(places[before[same]].tolist(), places[after[same]].tolist(), strict=True)
    yield from zip(places[first[bucket[after[same]]]].tolist(), places[after[same]].tolist(), strict=True)


class _Dropping(dict[int, int | None]):
    """A table for ``str.translate`` that decides on each character once."""

    def __missing__(self, code: int) -> int | None:
        self[code] = None if unicodedata.category(chr(code))[0] in "ZPC" else code
        return self[code]


_DROP = _Dropping()


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))


def _minima(words: frozenset[str]) -> NDArray[np.uint32]:
    hashes = np.array([zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words], dtype=np.uint64)
    minima: NDArray[np.uint32] = (
        ((hashes[:, None] * _MULTIPLY + _OFFSET) >> np.uint64(32)).min(axis=0).astype(np.uint32)
    )
    return minima


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)
