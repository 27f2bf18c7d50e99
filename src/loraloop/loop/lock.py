"""Claims that one process holds at a time, and that end with the process."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from loraloop.protocols import Database

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

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
            with _row(connection, name, seconds) as free:
                yield free
            return
    with _file(Path(str(url.database)), name, seconds) as free:
        yield free


@contextmanager
def turn(folder: Path) -> Iterator[None]:
    """Work alone in a folder of this machine; waits, without a limit, for another process that works there.

    A claim in PostgreSQL ends when its connection is lost, while the process works on. This lock lasts as long as the
    process.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        _log.warning("another process works in %s: waiting for it", folder)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _file(database: Path, name: str, seconds: float) -> Iterator[bool]:
    from filelock import FileLock, Timeout

    lock = FileLock(database.with_name(f".{database.name}.{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.lock"))
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


@contextmanager
def _row(connection: Connection, name: str, seconds: float) -> Iterator[bool]:
    key = {"key": int.from_bytes(hashlib.sha256(f"loraloop {name}".encode()).digest()[:8], "big", signed=True)}
    if seconds:
        connection.execute(
            sa.text("SELECT set_config('lock_timeout', :wait, true)"), {"wait": f"{1e3 * seconds:.0f}ms"}
        )
        try:
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), key)
            free = True
        except sa.exc.OperationalError:  # another process held it all that time
            connection.rollback()
            free = False
    else:
        free = bool(connection.scalar(sa.text("SELECT pg_try_advisory_lock(:key)"), key))
    connection.commit()  # the lock belongs to the connection; an open transaction would block vacuuming
    try:
        yield free
    finally:
        if free:
            try:
                connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), key)
                connection.commit()
            except sa.exc.SQLAlchemyError:  # the lock ended with the connection; the work under it is done
                _log.warning("the connection that held the lock %r was lost", name)
