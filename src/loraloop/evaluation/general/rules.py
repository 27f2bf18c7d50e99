"""Rules that tell without a judge whether an answer follows an instruction."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

CASED = "contains_exactly"


def follows(answer: str, rules: Mapping[str, Any]) -> bool:
    """Whether an answer meets every rule; words are compared without case, and whole words only.

    Args:
        answer: What a model said.
        rules: By name, as in :data:`RULES`.
    """
    return bool(answer.strip()) and all(RULES[name](answer.strip(), wanted) for name, wanted in rules.items())


def _contains(answer: str, wanted: list[str]) -> bool:
    """Each of ``wanted`` occurs, or one of its alternatives between bars."""
    return all(any(_place(answer, each) >= 0 for each in one.split("|")) for one in wanted)


def _place(answer: str, wanted: str) -> int:
    """Where whole words begin in an answer; -1 if nowhere. A letter may follow that makes a plural."""
    said, looked = answer.casefold(), wanted.casefold()
    start = said.find(looked)
    while start >= 0:
        end = start + len(looked)
        after = said[end : end + 2]
        if not said[start - 1 : start].isalnum() and not after.removeprefix("s")[:1].isalnum():
            return start
        start = said.find(looked, start + 1)
    return -1


def _json(answer: str, wanted: Any) -> bool:
    try:
        return bool(json.loads(answer) == wanted)
    except (ValueError, RecursionError):
        return False


def _in_order(answer: str, wanted: list[str]) -> bool:
    places = [_place(answer, each) for each in wanted]
    return -1 not in places and places == sorted(places)


RULES: Mapping[str, Callable[[str, Any], bool]] = {
    "contains": _contains,
    CASED: lambda answer, wanted: all(each in answer for each in wanted),
    "without": lambda answer, wanted: all(_place(answer, each) < 0 for each in wanted),
    "starts": lambda answer, wanted: _place(answer, wanted) == 0,
    "order": _in_order,
    "words": lambda answer, wanted: len(answer.split()) <= wanted,
    "lines": lambda answer, wanted: len([line for line in answer.splitlines() if line.strip()]) == wanted,
    "json": _json,
}
