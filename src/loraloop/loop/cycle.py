"""The loop's records: a cycle, and the events that are recorded with its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loraloop.core.transitions import EventName, State

HAND, RETRAIN = "hand", "retrain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One trip through the loop.

    Attributes:
        number: Counts a role's cycles from 1.
        kind: ``retrain``, or ``hand`` for the rollout of a version that a person chose.
        model: The registered model.
        state: As in :data:`loraloop.core.transitions.TABLE`.
        policy: Name of the policy that it began under.
        champion: The version that was served when it began.
        candidate: The version that it trained, or that a person chose.
        rollout: Id of its rollout.
        run: Id of its tracked run.
        attempts: How often its training was started since its last progress.
        began: ISO 8601, UTC; so are the other times.
    """

    id: str
    role: str
    number: int
    kind: str
    model: str
    state: State
    policy: str
    champion: int
    candidate: int | None
    rollout: str | None
    run: str | None
    attempts: int
    began: str
    changed: str
    ended: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What was done and why, recorded in the transaction that does it.

    Attributes:
        name: The ledger's word for it.
        version: The version that it is about.
        alias: The alias that it moves to ``version``; ``None``: none.
    """

    name: EventName
    version: int | None
    reason: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    alias: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """A recorded event that is not published everywhere yet.

    Attributes:
        alert: Whether people are alerted.
        published: Where it is published already.
    """

    id: str
    role: str
    model: str
    cycle: str | None
    event: Event
    alert: bool
    published: tuple[str, ...]
