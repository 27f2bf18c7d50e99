"""Sessions out of the store into ``<folder>/<id>/session.json``, and from there into a store."""

from __future__ import annotations

from pathlib import Path

from loraloop.core import atomic, session_file
from loraloop.core.session_file import SessionFile
from loraloop.errors import DataError
from loraloop.feedback.store import Store
from loraloop.records import Quarantined


def export(store: Store, folder: Path) -> tuple[int, list[Quarantined]]:
    """Write every session of the store below ``folder``, over an earlier export.

    Returns:
        How many were written, and those that could not be.

    Raises:
        DataError: A file cannot be written.
    """
    written, unusable = 0, []
    for session in store.all():
        try:
            content = SessionFile.of(session).encode()
        except TypeError as error:  # half of a surrogate pair
            unusable.append(Quarantined(session.id, str(error)))
            continue
        try:
            with atomic.write(folder / session.id / "session.json") as stream:
                stream.write(content)
        except OSError as error:
            raise DataError(f"{folder / session.id} cannot be written: {error.strerror}") from error
        written += 1
    return written, unusable


def load(store: Store, folder: Path) -> tuple[int, int, list[Quarantined]]:
    """Keep the sessions below ``folder`` in the store.

    Returns:
        How many are new, how many were there already, and the broken ones.

    Raises:
        DataError: There is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; name the one that holds ID/session.json")
    new, known, broken = 0, 0, []
    for found in session_file.read(folder):
        if isinstance(found, Quarantined):
            broken.append(found)
        elif store.insert(found):
            new += 1
        else:
            known += 1
    return new, known, broken
