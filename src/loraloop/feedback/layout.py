"""Sessions out of the store into ``<folder>/<id>/session.json``, and from there into a store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from loraloop.core import atomic, session_file
from loraloop.core.session_file import SessionFile
from loraloop.core.session_rows import refused, select
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
    with store.database.read() as connection:
        decided = refused(connection)
        for session in select(connection, paged=True):
            try:
                content = SessionFile.of(replace(session, refused=decided.get(session.id, ()))).encode()
            except TypeError as error:  # half of a surrogate pair
                unusable.append(Quarantined(session.id, str(error)))
                continue
            _write(folder / session.id / "session.json", content)
            written += 1
    return written, unusable


def _write(file: Path, content: bytes) -> None:
    try:
        with atomic.write(file) as stream:
            stream.write(content)
    except OSError as error:
        raise DataError(f"{file.parent} cannot be written: {error.strerror}") from error


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
