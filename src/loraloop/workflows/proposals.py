"""Proposes corrections for badly rated sessions; a person decides on them in ``stage=review``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError
from loraloop.workflows.judging import SCORE

if TYPE_CHECKING:
    from loraloop.feedback.store import Proposal, Store
    from loraloop.records import Session

    Waiting = tuple[Proposal, Session]

BAD = 4
"""Stars; sessions rated below it are to be corrected (promise D5)."""
ORDERS = ("oldest", "judge")
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
    waiting = [(one.id, one.waiting) for one in part.judge(sessions, reviewed=True) if one.waiting is not None]
    store.propose((session, target.source, target.text) for session, target in waiting)


def ordered(store: Store, waiting: Sequence[Waiting], order: str) -> list[Waiting]:
    """Proposals in the order in which a person is to see them.

    Args:
        store: The sessions.
        waiting: The oldest first.
        order: ``oldest`` leaves them so; ``judge`` begins with the answers that a judge scored lowest, by its last
            score, and ends with those that it did not score.

    Raises:
        ConfigError: There is no such order.
    """
    if order not in ORDERS:
        raise ConfigError(f"order={order}: write {' or '.join(ORDERS)}{nearest(order, ORDERS)}")
    if order == "oldest":
        return list(waiting)
    said = [(session, each) for session, each in store.judged() if each.kind == "feedback"]
    scores = {session: each.value for session, each in said if each.name.startswith(f"{SCORE}:")}
    return sorted(waiting, key=lambda each: (scores.get(each[1].id, math.inf), each[0].id))
