"""Characters that a recogniser takes for one another, and what random text looks like."""

from __future__ import annotations

import re
from itertools import pairwise

ALIKE = ("0OoQD", "1lI|i!", "2Zz", "5Ss$", "6Gb", "8B", "9gq", "4A", "7T")
"""Groups of characters that are drawn alike; the first of each is the digit."""

DIGITS = str.maketrans({letter: group[0] for group in ALIKE for letter in group[1:]})
"""Every look-alike to its digit."""

LETTERS = str.maketrans("012456789|!$", "OIZASGTBGIIS")
"""Every digit to the capital letter that it is most often read for."""

_CLASSES = {character: group for group in ALIKE for character in group}


def loose(word: str, gap: str = "") -> str:
    """A pattern for ``word`` in the looks of its letters, ``gap`` between them; a hyphen or underscore may be lost."""
    return gap.join(r"[-_.~—– ]{0,2}" if mark in "_-" else _one(mark) for mark in word)


def _one(mark: str) -> str:
    alike = {mark, *_CLASSES.get(mark, ""), *_CLASSES.get(mark.upper(), "")}
    return f"[{''.join(map(re.escape, sorted(alike)))}]"


def changes(text: str) -> int:
    """How often neighbours differ in kind: capital, small letter, digit. Random text changes with every other one."""
    kinds = [_kind(mark) for mark in text if mark.isalnum()]
    return sum(one != other for one, other in pairwise(kinds))


def scrambled(text: str) -> bool:
    """Whether ``text`` looks drawn by lot and not like words: its kinds change all the time."""
    letters = [mark for mark in text if mark.isalpha()]
    figures = sum(mark.isdigit() for mark in text)
    if len({mark.isupper() for mark in letters}) < 2:  # one case, as in hexadecimal: figures must be strewn in
        return figures >= 2 and changes(text) >= max(2, 0.12 * (len(letters) + figures))
    return changes(text) >= max(3, 0.3 * (len(letters) + figures))


def _kind(mark: str) -> str:
    return "digit" if mark.isdigit() else "capital" if mark.isupper() else "small"
