"""Proposes corrections for badly rated sessions; a person decides on them in ``stage=review``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from loraloop.core.same_task import collapse, task_key
from loraloop.feedback.store import Store
from loraloop.records import Session

BAD = 4
"""Stars; sessions rated below it are to be corrected (promise D5)."""
GOOD = 5
"""Stars; an answer rated so or higher is proposed for other sessions of its task."""


def propose(store: Store) -> None:
    """Propose for every badly rated session the best answer to the same task.

    Corrections that users wrote on the rating page wait in the store already. A rejected proposal is not proposed
    again, and those of a session that has a correction by now do not wait (:meth:`Store.proposals`).
    """
    store.propose((session, "sibling", text) for session, text in list(_siblings(store.all())))


def _siblings(sessions: Iterable[Session]) -> Iterator[tuple[str, str]]:
    by_task: dict[tuple[str | None, str], list[Session]] = defaultdict(list)
    for session in sessions:
        if session.rating is not None:
            by_task[task_key(session)].append(session)
    for group in by_task.values():
        good = sorted((each for each in group if (each.stars or 0) >= GOOD and each.answer), key=_rank)
        for bad in group:
            if (bad.stars or 0) >= BAD:
                continue
            other = next((each.answer for each in good if _words(each) != _words(bad)), None)
            if other is not None:
                yield bad.id, other


def _words(session: Session) -> str:
    return collapse(session.answer or "").casefold()


def _rank(session: Session) -> tuple[int, float, str]:
    return -(session.implied or 0), session.duration or 0.0, session.id
