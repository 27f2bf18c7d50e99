"""Conversations of different clients, and conversations that hold too much of what is measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import overload

from loraloop.records import Outcome

MOST = 0.05
"""Share of the sessions that one conversation may hold without a warning."""
LEAST = 100
"""Sessions below which nobody is warned."""


@overload
def scoped(name: str, key: str | None) -> str: ...
@overload
def scoped(name: str | None, key: str | None) -> str | None: ...
def scoped(name: str | None, key: str | None) -> str | None:
    """The name of a conversation or of who asked, told apart from those that other keys call the same."""
    return name if name is None or key is None else f"{key}/{name}"


def dominant(outcomes: Sequence[Outcome]) -> str | None:
    """A warning about the largest conversation; ``None`` if it is not large.

    The rules take a conversation for one observation. A client that gives all requests one name is one observation for
    ever, and the rules learn nothing from it.
    """
    if len(outcomes) < LEAST:
        return None
    ((name, count),) = Counter(each.conversation for each in outcomes).most_common(1)
    if count <= MOST * len(outcomes):
        return None
    return (
        f"the conversation {name!r} holds {count} of {len(outcomes)} sessions, and the rules take it for one "
        "observation: give each conversation a name of its own (metadata.conversation), or none"
    )
