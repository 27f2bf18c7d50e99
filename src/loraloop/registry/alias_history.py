"""What the ledger says of a moment: which version an alias pointed at, why, and what was tried beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from loraloop.errors import RegistryError
from loraloop.registry.ledger import Entry, moment

ENDS = frozenset({"promote", "rollback", "stop", "fail"})
"""Events that end the rollout that they name."""
MOVES = frozenset({"promote", "rollback"})
"""Events that bring an alias to a version; where a process ended before it told, the move was observed first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveVersion:
    """What served at a moment.

    Attributes:
        version: ``None`` where the alias was taken away.
        entry: By which the alias came to that version.
        why: What decided it: ``entry``, unless that only notes a move which was told afterwards.
        canary: By which a rollout began that was under way.
    """

    version: int | None
    entry: Entry
    why: Entry
    canary: Entry | None


def decided(entry: Entry) -> datetime:
    """When an entry's decision was taken: with a registry that was away, that is before it was written down."""
    written = datetime.fromisoformat(entry.time)
    try:
        taken = moment(str(entry.numbers["decided"]))
    except (KeyError, RegistryError):
        return written
    return min(taken, written)


def active_version(entries: Iterable[Entry], alias: str, at: datetime) -> ActiveVersion | None:
    """Which version ``alias`` pointed at then; ``None`` before it first pointed at any.

    A rollout is over when an entry says so, or when the alias comes to another version than the one that it was tried
    against: a server follows the alias, which moves when the entry is written. Rollouts begin and end when that is
    decided.

    Args:
        entries: Of the ledger, oldest first.
        alias: Such as ``champion``.
        at: What happened later is not looked at.
    """
    entry = why = canary = None
    for each in entries:
        if (datetime.fromisoformat(each.time) if each.alias == alias else decided(each)) > at:
            continue
        moved = each.alias == alias and (entry is None or each.version != entry.version)
        if moved:
            entry = why = each
        elif entry and entry.event == "observed" and each.event in MOVES and each.version == entry.version:
            why = each
        if each.event == "rollout":
            canary = each
        elif moved or (canary and each.event in ENDS and each.numbers.get("rollout") == canary.numbers.get("rollout")):
            canary = None
    return ActiveVersion(version=entry.version, entry=entry, why=why, canary=canary) if entry and why else None
