"""Claims that one process holds at a time, and that end with the process."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loraloop.core.locks import advisory_lock, file_lock
from loraloop.protocols import Database

_log = logging.getLogger(__name__)


@contextmanager
def claim(database: Database, name: str, seconds: float) -> Iterator[bool]:
    """Hold a claim: a lock on a file beside a SQLite database, or an advisory lock of PostgreSQL.

    Args:
        database: Where processes that compete for the claim meet.
        name: Of the claim.
        seconds: How long to wait for it.

    Yields:
        Whether it is held; ``False`` if another process holds it.
    """
    with database.read() as connection:
        url, kind = connection.engine.url, connection.dialect.name
        if kind == "postgresql":
            with advisory_lock(connection, f"loraloop {name}", seconds) as free:
                yield free
            return
    database_file = Path(str(url.database))
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    with file_lock(database_file.with_name(f".{database_file.name}.{plain}.lock"), seconds) as free:
        yield free


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Work alone in a folder of this machine; waits, without a limit, for another process that works there.

    A claim in PostgreSQL ends when its connection is lost, while the process works on. This lock lasts as long as the
    process.
    """
    path = folder / ".lock"
    with file_lock(path, 0) as free:
        if free:
            yield
            return
    _log.warning("another process works in %s: waiting for it", folder)
    with file_lock(path, None):
        yield
