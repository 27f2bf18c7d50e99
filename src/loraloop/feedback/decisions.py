"""What people decided on proposed corrections: of two who decide at once, the first counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from loraloop.feedback.schema import corrections, reviewers, sessions

Reviewed = Literal["accepted", "edited", "rejected"]
TAKEN = ("accepted", "edited")
"""With these a correction is that of its session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What was decided.

    Attributes:
        proposal: On which proposal.
        session: Of this session.
        time: ISO 8601, UTC.
        key: Name of the API key with which it was decided; ``None`` at a terminal.
        text: The correction as it was accepted; as it was proposed where it was rejected.
    """

    proposal: int
    session: str
    status: str
    time: str | None
    key: str | None
    text: str


def decide(connection: Connection, proposal: int, reviewed: Reviewed, text: str | None, key: str | None) -> bool:
    """Keep a decision; ``False`` where the proposal is decided on, or its session has a correction, or is gone."""
    own = sa.select(corrections.c.session).where(corrections.c.id == proposal).scalar_subquery()
    # PostgreSQL lets two decide at once: the second waits here for the first.
    if connection.scalar(sa.select(sessions.c.id).where(sessions.c.id == own).with_for_update()) is None:
        return False
    taken = sa.select(corrections.c.id).where(corrections.c.session == own, corrections.c.status.in_(TAKEN))
    if reviewed != "rejected" and connection.scalar(taken.limit(1)) is not None:
        return False
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    values = {"status": reviewed, "decided": now} | ({"text": text} if text is not None else {})
    waiting = (corrections.c.id == proposal) & (corrections.c.status == "proposed")
    if connection.execute(corrections.update().where(waiting).values(values)).rowcount == 0:
        return False
    if key is not None:
        connection.execute(reviewers.insert().values(correction=proposal, key=key))
    return True


def decision(connection: Connection, proposal: int) -> Decision | None:
    """What was decided on a proposal, or else on another one of its session; ``None`` while it waits."""
    own = sa.select(corrections.c.session).where(corrections.c.id == proposal).scalar_subquery()
    decided = (corrections.c.id == proposal) & (corrections.c.status != "proposed")
    instead = (corrections.c.session == own) & corrections.c.status.in_(TAKEN)
    found = (
        sa.select(corrections, reviewers.c.key)
        .outerjoin(reviewers, reviewers.c.correction == corrections.c.id)
        .where(decided | instead)
        .order_by((corrections.c.id == proposal).desc(), corrections.c.id.desc())
    )
    row = connection.execute(found.limit(1)).first()
    if row is None:
        return None
    names = ("session", "status", "key", "text")
    return Decision(proposal=row.id, time=row.decided, **{name: getattr(row, name) for name in names})
