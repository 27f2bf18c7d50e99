"""Stage ``review``: a person accepts, edits or rejects corrections before anyone learns from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loraloop.errors import ConfigError
from loraloop.workflows.retraining.deployment import sessions_of

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Store
    from loraloop.records import Job

ALL = "all"


def review(
    job: Job,
    below: int,
    order: str,
    accept: Sequence[int] | str | None,
    reject: Sequence[int] | str | None,
    role: str | None,
    roles: dict[str, str],
    names: dict[str, str],
    feedback: Feedback,
) -> None:
    """Decide on proposed corrections: those that are named, all that wait, or one by one on the terminal.

    Raises:
        ConfigError: A named proposal does not wait for review, or the role or the order is unknown.
    """
    from loraloop.feedback import review_terminal
    from loraloop.workflows.proposals import ordered, propose

    own = sessions_of(role, roles, names)
    store = feedback.existing()
    propose(store, int(below))
    waiting = ordered(store, store.proposed(own), order)
    numbers = [proposal.id for proposal, _ in waiting]
    if accept or reject:
        _named(store, numbers, _chosen(accept, numbers), _chosen(reject, numbers))
        print(f"{len(store.proposed(own))} wait")
        return
    if not waiting:
        review_terminal.print_none(store, int(below), own)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        review_terminal.decide_each(store, waiting)
    else:
        review_terminal.print_waiting(store, waiting)


def _chosen(asked: Sequence[int] | str | None, waiting: Sequence[int]) -> list[Any]:
    """The numbers as they were given; :func:`_named` checks whether they wait."""
    if asked == ALL:
        return list(waiting)
    return list(asked) if isinstance(asked, list) else [asked] if asked else []


def _named(store: Store, waiting: Sequence[int], accept: Sequence[int], reject: Sequence[int]) -> None:
    there = set(waiting)
    twice = sorted(set(accept) & set(reject))
    problems = [f"proposal {each} does not wait for review" for each in (*accept, *reject) if each not in there]
    problems += [f"proposal {each} is named in accept and in reject" for each in twice]
    if problems:
        numbers = ", ".join(map(str, sorted(there))) or "none"
        raise ConfigError(*problems[:-1], f"{problems[-1]}; these wait: {numbers} (stage=review shows them)")
    for proposal in accept:
        store.decide(proposal, "accepted")
    for proposal in reject:
        store.decide(proposal, "rejected")
    print(f"{len(accept)} accepted, {len(reject)} rejected", end=", ")
