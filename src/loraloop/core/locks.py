"""Locks between processes; each falls with the process that holds it, however that ends."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.errors import LoraloopError

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_log = logging.getLogger(__name__)


@contextmanager
def file_lock(path: Path, seconds: float | None, *, reentrant: bool = False) -> Iterator[bool]:
    """Hold the operating system's lock on a file, which is made where it is missing.

    Args:
        path: The lock file.
        seconds: How long to wait for it; ``None`` waits without end.
        reentrant: Whether a thread that holds it may take it again.

    Yields:
        Whether it is held.
    """
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, is_singleton=reentrant)
    try:
        lock.acquire(timeout=-1 if seconds is None else seconds)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def required_lock(path: Path, seconds: float, error: type[LoraloopError]) -> Iterator[None]:
    """Hold a lock file; a thread that holds it may take it again.

    Raises:
        LoraloopError: An ``error``: another process has held it for ``seconds``.
    """
    with file_lock(path, seconds, reentrant=True) as held:
        if not held:
            raise error(f"another process has held {path} for {seconds:.0f} s: end it, then repeat")
        yield


@contextmanager
def advisory_lock(connection: Connection, name: str, seconds: float) -> Iterator[bool]:
    """Hold an advisory lock of PostgreSQL for the connection's session.

    No transaction stays open meanwhile: that would hold up vacuuming. Where the connection is lost, the lock falls, and
    a warning says so.

    Args:
        connection: To the database whose users take turns.
        name: What they take turns at.
        seconds: How long to wait for it.

    Yields:
        Whether it is held.
    """
    from sqlalchemy import text
    from sqlalchemy.exc import SQLAlchemyError

    key = {"key": int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)}
    free = _acquired(connection, key, seconds)
    connection.commit()
    try:
        yield free
    finally:
        if free:
            try:
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)
                connection.commit()
            except SQLAlchemyError:  # the lock fell with the connection: what was done under it is done
                _log.warning("the connection that held the lock %r was lost", name)


def _acquired(connection: Connection, key: dict[str, int], seconds: float) -> bool:
    from sqlalchemy import text
    from sqlalchemy.exc import OperationalError

    if not seconds:
        return bool(connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), key))
    wait = {"wait": f"{1e3 * seconds:.0f}ms"}
    connection.execute(text("SELECT set_config('lock_timeout', :wait, true)"), wait)
    try:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), key)
    except OperationalError:  # not free within that time
        connection.rollback()
        return False
    return True
