"""The sessions of a folder or a database, and those that are set aside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import session_file
from loraloop.records import Quarantined, Session
from loraloop.source.sessions import calls, database

if TYPE_CHECKING:
    from sqlalchemy.engine import URL


def read(place: Path | URL) -> tuple[dict[str, Session], list[Quarantined]]:
    """Every session by its id, in the order of the ids; one that nothing can be made of is set aside.

    Args:
        place: A folder that holds ``<id>/session.json``, or a database.

    Raises:
        DataError: The database cannot be read.
    """
    found = session_file.read(place, session_file.UNLEARNED) if isinstance(place, Path) else database.read(place)
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
