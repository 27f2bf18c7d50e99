"""The records of the loop: a cycle, its states, and what was decided in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

ENDS = ("promoted", "rolled_back", "refused", "stopped", "failed")
"""States in which a cycle is over."""
WAYS: Mapping[str, tuple[str, ...]] = {
    "triggered": ("prepared", "refused", "failed", "stopped"),
    "prepared": ("trained", "refused", "failed", "stopped"),
    "trained": ("registered", "refused", "failed", "stopped"),
    "registered": ("canary", "failed", "stopped"),
    "canary": ("promoting", "rolled_back", "stopped"),
    "promoting": ("promoted", "rolled_back", "stopped"),
}
"""Where each open state may lead. A version that was chosen by hand begins as ``registered``."""
HAND, RETRAIN = "hand", "retrain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """One trip through the loop.

    Attributes:
        number: Counts a role's cycles from 1.
        kind: ``retrain``, or ``hand`` for a version that a person chose.
        model: The registered model.
        state: A key of :data:`WAYS` or one of :data:`ENDS`.
        policy: Name of the policy that it began under.
        champion: The version that reigned when it began.
        candidate: The version that it made.
        rollout: Id of its rollout.
        run: Id of its tracked run.
        attempts: How often its training was begun.
        began: ISO 8601, UTC; so are the other times.
    """

    id: str
    role: str
    number: int
    kind: str
    model: str
    state: str
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
    """A decision, to be kept in the transaction that carries it out.

    Attributes:
        event: What the ledger calls it: ``trigger``, ``corrective``, ``train``, ``gate``, ``rollout``, ``promote``,
            ``rollback``, ``stop``, ``refuse`` or ``fail``.
        version: What it is about.
        alias: Which alias it moves to ``version``.
        alert: Whether people are told.
    """

    event: str
    version: int | None
    reason: str
    numbers: Mapping[str, Any] = field(default_factory=dict)
    alias: str | None = None
    alert: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxEntry:
    """A decision that was carried out and is not everywhere yet where it must be told."""

    id: str
    role: str
    model: str
    cycle: str | None
    decided: Event
    told: tuple[str, ...]
