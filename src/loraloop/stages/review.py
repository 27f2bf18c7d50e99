"""Stage ``review``: a person accepts, edits or rejects corrections before anyone learns from them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from loraloop.errors import ConfigError
from loraloop.workflows.retraining.deployment import sessions_of

if TYPE_CHECKING:
    from loraloop.feedback.review_queue import Queue
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Store
    from loraloop.records import Job

ALL = "all"


def review(
    job: Job,
    queue: Queue,
    accept: Sequence[int] | str | None,
    reject: Sequence[int] | str | None,
    role: str | None,
    roles: dict[str, str],
    names: dict[str, str],
    feedback: Feedback,
) -> None:
    """Decide on proposed corrections: those that are named, all that wait, or one by one on the terminal.

    Raises:
        ConfigError: A named proposal does not wait for review, or the role is unknown.
    """
    from loraloop.feedback import review_terminal
    from loraloop.workflows.proposals import waiting as waiting_in

    own = sessions_of(role, roles, names)
    store = feedback.existing()
    waiting = waiting_in(store, queue, own=own)
    sessions = {each.proposal.id: each.session.id for each in waiting}
    if accept or reject:
        _named(store, sessions, _chosen(accept, sessions), _chosen(reject, sessions))
        print(f"{len(store.proposed(own))} wait")
        return
    if not waiting:
        review_terminal.print_none(store, queue.below, own)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        review_terminal.decide_each(store, waiting)
    else:
        review_terminal.print_waiting(store, waiting)


def _chosen(asked: Sequence[int] | str | None, waiting: Mapping[int, str]) -> list[Any]:
    """The numbers as they were given; :func:`_named` checks whether they wait. ``all`` is one of each session."""
    if asked == ALL:
        return list({session: proposal for proposal, session in reversed(list(waiting.items()))}.values())
    return list(asked) if isinstance(asked, list) else [asked] if asked else []


def _named(store: Store, waiting: Mapping[int, str], accept: Sequence[int], reject: Sequence[int]) -> None:
    twice = sorted(set(accept) & set(reject))
    same = sorted(each for each in accept if [waiting.get(one) for one in accept].count(waiting.get(each, "")) > 1)
    problems = [f"proposal {each} does not wait for review" for each in (*accept, *reject) if each not in waiting]
    problems += [f"proposal {each} is named in accept and in reject" for each in twice]
    problems += [f"proposals {', '.join(map(str, same))}: a session takes one of its proposals"] * bool(same)
    if problems:
        numbers = ", ".join(map(str, sorted(waiting))) or "none"
        raise ConfigError(*problems[:-1], f"{problems[-1]}; these wait: {numbers} (stage=review shows them)")
    for proposal in accept:
        store.decide(proposal, "accepted")
    for proposal in reject:
        store.decide(proposal, "rejected")
    print(f"{len(accept)} accepted, {len(reject)} rejected", end=", ")
