"""How well a page was read: character error, and words found whatever their order or in order."""

from __future__ import annotations

from collections import Counter


def character_error(truth: str, read: str) -> float:
    """Edits from ``read`` to ``truth`` per character of the truth, white space folded (character error rate)."""
    from rapidfuzz.distance import Levenshtein

    expected = " ".join(truth.split())
    return float(Levenshtein.distance(expected, " ".join(read.split()))) / max(1, len(expected))


def word_f1(truth: str, read: str) -> float:
    """Harmonic mean of precision and recall over words, in any order (as in the SROIE competition, ICDAR 2019)."""
    expected, found = truth.split(), read.split()
    return _f1(sum((Counter(expected) & Counter(found)).values()), len(expected), len(found))


def ordered_word_f1(truth: str, read: str) -> float:
    """The same over the longest common subsequence: words read across columns do not count."""
    from rapidfuzz.distance import LCSseq

    expected, found = truth.split(), read.split()
    return _f1(int(LCSseq.similarity(expected, found)), len(expected), len(found))


def _f1(common: int, expected: int, found: int) -> float:
    return 2 * common / (expected + found) if expected + found else 1.0
