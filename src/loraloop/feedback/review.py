"""Corrections for badly rated sessions, proposed for review: nothing here decides."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from loraloop.feedback.logged import Logged
from loraloop.feedback.store import Store

BAD = 4
"""Stars; sessions rated below are to be corrected (promise D5)."""
GOOD = 5
"""Stars from which on an answer serves as an example for another session."""


def propose(store: Store) -> None:
    """Propose for every badly rated session what its best sibling answered.

    What users wrote on the rating page waits in the store already. A proposal that was rejected does not come back, and
    those of a session that has a correction by now do not wait (:meth:`Store.proposals`).
    """
    store.propose((session, "sibling", text) for session, text in list(_siblings(store.all())))


def _siblings(sessions: Iterable[Logged]) -> Iterator[tuple[str, str]]:
    kin: dict[tuple[str | None, str], list[Logged]] = defaultdict(list)
    for each in sessions:
        if each.rating is not None:
            kin[each.role, _key(each.task)].append(each)
    for group in kin.values():
        good = sorted((each for each in group if _stars(each) >= GOOD and each.answer), key=_merit)
        for each in group:
            if _stars(each) >= BAD:
                continue
            other = next((one.answer for one in good if _key(one.answer or "") != _key(each.answer or "")), None)
            if other is not None:
                yield each.id, other


def _key(text: str) -> str:
    """What makes two tasks the same: their words, whatever the case and the white space."""
    return " ".join(text.split()).casefold()


def _stars(logged: Logged) -> int:
    return logged.rating.stars if logged.rating else 0


def _merit(logged: Logged) -> tuple[int, float, str]:
    return -(logged.implied or 0), logged.duration or 0.0, logged.id
