"""Proposes corrections for badly rated sessions; a person decides on them in ``stage=review``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loraloop.feedback.review_queue import Item, Queue
    from loraloop.feedback.store import Store
    from loraloop.records import Session

BAD = 4
"""Stars; sessions rated below it are to be corrected (promise D5)."""
GOOD = 5
"""Stars; an answer rated so or higher is proposed for other sessions of its task."""


def propose(store: Store, below: int = BAD) -> None:
    """Propose for every badly rated session what training would learn from it: a good sibling, or a rule's answer.

    Corrections that users wrote on the rating page wait in the store already. What a person rejected for a task is not
    proposed for it again: the next best answer is. Proposals of a session that has a correction by now do not wait
    (:meth:`Store.proposals`).

    Args:
        store: The sessions.
        below: Stars; sessions rated below it are to be corrected.
    """
    from loraloop.source.sessions import Sessions, reading

    part = Sessions(below=below, min_positive_rating=GOOD, use=("corrective",), min_corrective=0)
    sessions, _ = reading.corrective(store.database.url, below, GOOD)
    found = [(one.id, one.waiting) for one in part.judge(sessions, reviewed=True) if one.waiting is not None]
    store.propose((session, target.source, target.text) for session, target in found)


def waiting(
    store: Store, queue: Queue, look: bool = True, own: Callable[[Session], bool] = lambda session: True
) -> list[Item]:
    """What waits for a person, in the order of the queue: that of ``stage=review`` and of the page ``/review``.

    Args:
        store: The sessions.
        queue: The order.
        look: Whether new proposals are looked for first.
        own: Holds for the sessions that count.
    """
    if look:
        propose(store, queue.below)
    return queue.items(store, own)
