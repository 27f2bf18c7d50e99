"""The sessions of a folder or a database, and those that are set aside."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import session_file
from loraloop.core.same_task import task_key
from loraloop.records import Quarantined, Session
from loraloop.source.sessions import calls, database

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


Usable = tuple[dict[str, Session], list[Quarantined]]
"""Sessions by id, in the order of the ids, and those that nothing can be made of."""

DECIDED = "sessions.id IN (SELECT session FROM corrections WHERE status <> 'proposed')"
"""What a person accepted or rejected counts for the whole task, whatever the session's rating."""


def read(place: Path | URL) -> Usable:
    """Every session.

    Args:
        place: A folder that holds ``<id>/session.json``, or a database.

    Raises:
        DataError: The database cannot be read.
    """
    return _usable(
        session_file.read(place, session_file.UNLEARNED) if isinstance(place, Path) else database.read(place)
    )


def rated(url: URL, low: int, high: int) -> Usable:
    """The sessions of a database that are rated below ``low``, or ``high`` or more, or whose correction was decided.

    Raises:
        DataError: The database cannot be read.
    """
    return _usable(database.read(url, f"given.stars < :low OR given.stars >= :high OR {DECIDED}", low=low, high=high))


def corrective(url: URL, low: int, high: int) -> Usable:
    """The sessions of a database that are rated below ``low``, and those of their tasks that say what is right.

    These are rated ``high`` or more, or a person decided on their correction.

    Raises:
        DataError: The database cannot be read.
    """
    sessions, broken = _usable(database.read(url, "given.stars < :low", low=low))
    tasks = {task_key(each) for each in sessions.values()}
    found = database.read(url, f"given.stars >= :high OR {DECIDED}", high=high) if tasks else iter(())
    good, unusable = _usable(each for each in found if isinstance(each, Quarantined) or task_key(each) in tasks)
    return dict(sorted((sessions | good).items())), sorted([*broken, *unusable], key=lambda one: one.item)


def _usable(found: Iterable[Session | Quarantined]) -> Usable:
    sessions: dict[str, Session] = {}
    quarantined: list[Quarantined] = []
    for each in found:
        if isinstance(each, Quarantined):
            quarantined.append(each)
        elif (reason := calls.fault(each)) is not None:
            quarantined.append(Quarantined(each.id, reason))
        else:
            sessions[each.id] = each
    return sessions, quarantined
