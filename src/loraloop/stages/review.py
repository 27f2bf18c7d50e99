"""Stage ``review``: a person accepts, edits or rejects corrections before anyone learns from them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloop.workflows.retraining.deployment import sessions_of

if TYPE_CHECKING:
    from loraloop.feedback.review_queue import Queue
    from loraloop.feedback.settings import Feedback
    from loraloop.records import Job


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
        ConfigError: A named proposal does not wait for review or cannot be accepted, or the role is unknown.
    """
    from loraloop.feedback import review_numbers, review_terminal
    from loraloop.workflows.proposals import waiting as waiting_in

    own = sessions_of(role, roles, names)
    store = feedback.existing()
    waiting = waiting_in(store, queue, own=own)
    if accept or reject:
        review_numbers.decide(store, waiting, accept, reject)
        print(f"{len(store.proposed(own))} wait")
        return
    if not waiting:
        review_terminal.print_none(store, queue.below, own)
    elif sys.stdin.isatty() and sys.stdout.isatty():
        review_terminal.decide_each(store, waiting)
    else:
        review_terminal.print_waiting(store, waiting)
