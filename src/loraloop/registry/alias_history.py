"""The past of an alias, read from the ledger: its version at a time, the reason, and the rollout beside it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from loraloop.core.transitions import MOVES_SERVED, ROLLOUT_OVER
from loraloop.errors import RegistryError
from loraloop.registry.ledger import Entry, moment


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveVersion:
    """The version that an alias pointed at, and the entries that explain it.

    Attributes:
        version: ``None``: the alias was removed.
        entry: The entry that moved the alias to the version.
        why: The entry with the reason: ``entry``, or the decision that was entered after an observed move.
        canary: The entry that began the rollout that ran; ``None``: none ran.
    """

    version: int | None
    entry: Entry
    why: Entry
    canary: Entry | None


def decided(entry: Entry) -> datetime:
    """When an entry's event was decided: before the entry was written if the registry could not be reached then."""
    written = datetime.fromisoformat(entry.time)
    try:
        taken = moment(str(entry.numbers["decided"]))
    except (KeyError, RegistryError):
        return written
    return min(taken, written)


def active_version(entries: Iterable[Entry], alias: str, at: datetime) -> ActiveVersion | None:
    """The version that ``alias`` pointed at, and why; ``None`` before it first pointed at any.

    A rollout ends with an event that names it, or when the alias moves to another version: a server follows the alias,
    which moves when the entry is written. Rollouts begin and end at the time of the decision.

    Where a process ended between a move and its entry, the ledger has an ``observed`` entry first and the decision
    after it.

    Args:
        entries: The ledger's, oldest first.
        alias: Such as ``champion``.
        at: Later entries are ignored.
    """
    entry = why = canary = None
    for each in entries:
        if (datetime.fromisoformat(each.time) if each.alias == alias else decided(each)) > at:
            continue
        moved = each.alias == alias and (entry is None or each.version != entry.version)
        if moved:
            entry = why = each
        elif entry and entry.event == "observed" and each.event in MOVES_SERVED and each.version == entry.version:
            why = each
        if each.event == "rollout":
            canary = each
        elif moved or (canary and _ends(each, canary)):
            canary = None
    return ActiveVersion(version=entry.version, entry=entry, why=why, canary=canary) if entry and why else None


def _ends(entry: Entry, rollout: Entry) -> bool:
    """Whether an entry ends the rollout that another one began."""
    return entry.event in ROLLOUT_OVER and entry.numbers.get("rollout") == rollout.numbers.get("rollout")
