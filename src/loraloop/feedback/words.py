"""The difference between two texts, word by word."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal, TypeVar

_WORD = re.compile(r"\s+|\w+|[^\w\s]")
MOST = 250_000
"""Pairs of words that are compared; beyond it the differing middle is shown whole, since the time is their product."""
Each = TypeVar("Each")


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of text that both have, that only the old one has, or that only the new one has."""

    kind: Literal["same", "removed", "added"]
    text: str


def difference(old: str, new: str) -> list[Piece]:
    """What was removed and added, in order; the pieces without what was added are the old text, and likewise."""
    a, b = _WORD.findall(old), _WORD.findall(new)
    before = _common(a, b)
    a, b, head = a[before:], b[before:], a[:before]
    after = _common(a[::-1], b[::-1])
    tail = a[len(a) - after :]
    a, b = a[: len(a) - after], b[: len(b) - after]
    pieces = [("same", head), *_middle(a, b), ("same", tail)]
    return [Piece(kind, "".join(words)) for kind, words in pieces if words]


def aligned(
    a: Sequence[Each], b: Sequence[Each], key: Callable[[Each], Hashable]
) -> Iterator[tuple[bool, Sequence[Each], Sequence[Each]]]:
    """The stretches of two sequences in order: whether their keys are the same, and what each sequence has there."""
    if len(a) * len(b) > MOST:
        yield False, a, b
        return
    for tag, a1, a2, b1, b2 in SequenceMatcher(None, [*map(key, a)], [*map(key, b)], autojunk=False).get_opcodes():
        yield tag == "equal", a[a1:a2], b[b1:b2]


def _middle(a: Sequence[str], b: Sequence[str]) -> Iterator[tuple[Literal["same", "removed", "added"], Sequence[str]]]:
    removed: list[str] = []
    added: list[str] = []
    for same, old, new in aligned(a, b, str):
        if same and "".join(old).strip():
            yield from (("removed", removed), ("added", added), ("same", old))
            removed, added = [], []
        else:  # white space alone between changes is read better as a part of them
            removed, added = [*removed, *old], [*added, *new]
    yield from (("removed", removed), ("added", added))


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """How many words both begin with."""
    return next((at for at, (one, two) in enumerate(zip(a, b, strict=False)) if one != two), min(len(a), len(b)))
