"""What sessions say about the versions that answered them."""

from __future__ import annotations

from loraloop.core.conversations import scoped
from loraloop.core.durations import stamp
from loraloop.records import Outcome, Session


def outcome(session: Session) -> Outcome | None:
    """The outcome of a session; ``None`` where it says nothing about a version.

    That is so where nobody knows when it was or what answered it, and where its time, which earlier versions imported
    as it came, cannot be read.
    """
    if session.time is None or session.answered is None:
        return None
    try:
        time = stamp(session.time)
    except ValueError:
        return None
    return Outcome(
        session=session.id,
        time=time,
        conversation=scoped(session.conversation or session.id, session.asked_key),
        rater=scoped(session.client, session.asked_key),
        answered=session.answered,
        rollout=session.rollout,
        success=None if session.status == "cancelled" else session.success,
        stars=session.stars,
        rated=session.rated,
        duration=session.duration,
    )
