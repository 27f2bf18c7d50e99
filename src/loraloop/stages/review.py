"""Stage ``review``: a person accepts, edits or rejects corrections before anyone learns from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Proposal, Store
    from loraloop.records import Job

ALL = "all"


def review(
    job: Job, below: int, accept: Sequence[int] | str | None, reject: Sequence[int] | str | None, feedback: Feedback
) -> None:
    """Decide on proposed corrections: those that are named, all that wait, or one by one on the terminal.

    Raises:
        ConfigError: A named proposal does not wait for review.
    """
    from loraloop.feedback import review_terminal
    from loraloop.workflows.proposals import propose

    store = feedback.existing()
    propose(store, int(below))
    waiting = store.proposals()
    if accept or reject:
        _named(store, _chosen(accept, waiting), _chosen(reject, waiting))
        return
    if not waiting:
        print("no correction waits for review")
    elif sys.stdin.isatty() and sys.stdout.isatty():
        review_terminal.decide_each(store, waiting)
    else:
        review_terminal.print_waiting(store, waiting)


def _chosen(asked: Sequence[int] | str | None, waiting: Sequence[Proposal]) -> list[Any]:
    """The numbers as they were given; :func:`_named` checks whether they wait."""
    if asked == ALL:
        return [proposal.id for proposal in waiting]
    return list(asked) if isinstance(asked, list) else [asked] if asked else []


def _named(store: Store, accept: Sequence[int], reject: Sequence[int]) -> None:
    waiting = {proposal.id for proposal in store.proposals()}
    unknown = [each for each in (*accept, *reject) if each not in waiting]
    if unknown or set(accept) & set(reject):
        raise ConfigError(
            f"accept={list(accept)} reject={list(reject)}: each proposal that waits is named once, "
            f"and {', '.join(map(str, unknown)) or 'one'} is not; stage=review lists them"
        )
    for proposal in accept:
        store.decide(proposal, "accepted")
    for proposal in reject:
        store.decide(proposal, "rejected")
    print(f"{len(accept)} accepted, {len(reject)} rejected, {len(store.proposals())} wait")
