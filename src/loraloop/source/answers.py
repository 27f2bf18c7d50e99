"""How a source tells a right answer from a wrong one when the text itself is the answer."""

from __future__ import annotations


def same(expected: str, answer: str) -> bool:
    """Whether two texts are equal but for case, runs of white space and a full stop at the end."""
    return _plain(expected) == _plain(answer)


def _plain(text: str) -> str:
    return " ".join(text.split()).removesuffix(".").rstrip().casefold()
