"""Where studies are kept, a SQLite file or a PostgreSQL database, and which sweep may work on a study."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core.extras import require
from loraloop.core.hashing import sha256
from loraloop.core.locks import advisory_lock, file_lock
from loraloop.core.passwords import mask
from loraloop.errors import ConfigError, LoraloopError, SweepError
from loraloop.sweep.lasting import lasting

if TYPE_CHECKING:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import Connection, Engine

KEY = "hydra.sweeper.storage"
CONNECT_SECONDS = 4
"""For each address of a host: a name with an IPv4 and an IPv6 address is given up within 10 s."""
BUSY_SECONDS = 60
"""How long SQLite waits while another process writes."""


def address(storage: str | None, folder: str) -> str:
    """The URL that finds the database from any working directory.

    Args:
        storage: ``sqlite:///FILE``, ``postgresql://...`` or ``None`` for the file ``optuna.db``.
        folder: Where that file lies.

    Raises:
        ConfigError: It is no such URL.
    """
    from sqlalchemy.engine import URL, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = URL.create("sqlite", database=f"{folder}/optuna.db") if storage is None else make_url(storage)
    except (ArgumentError, ValueError):
        raise ConfigError(f"{KEY} is no database URL: sqlite:///FILE or postgresql://USER@HOST/DATABASE") from None
    kind = url.get_backend_name()
    if kind == "sqlite" and url.database and ":memory:" not in url.database:
        url = url.set(database=str(Path(url.database).absolute()))
    elif kind == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    else:
        raise ConfigError(
            f"{KEY}={mask(str(storage))}: trials in other processes share a SQLite file or a PostgreSQL database, "
            "sqlite:///FILE or postgresql://USER@HOST/DATABASE"
        )
    return url.render_as_string(hide_password=False)


def connect(url: str) -> RDBStorage:
    """Optuna's storage at a URL of :func:`address`, made once per process.

    Raises:
        ConfigError: It cannot be reached within 10 s, or is not a study database.
        MissingDependencyError: PostgreSQL's driver is not installed.
    """
    return _connect(url, os.getpid())


@functools.lru_cache(maxsize=8)
def _connect(url: str, process: int) -> RDBStorage:
    from optuna.storages import RDBStorage
    from sqlalchemy.engine import make_url

    kind = RDBStorage
    if url.startswith("sqlite"):
        Path(str(make_url(url).database)).parent.mkdir(parents=True, exist_ok=True)
        options = {"timeout": BUSY_SECONDS}
    else:
        require("psycopg", "postgres")
        kind, options = lasting(), {"connect_timeout": CONNECT_SECONDS}
    try:
        with explained(url):
            return kind(url, engine_kwargs={"connect_args": options, "pool_pre_ping": True})
    except RuntimeError as error:  # tables of another Optuna
        raise ConfigError(_sentence(url, error)) from error


@contextmanager
def explained(url: str, kind: type[LoraloopError] = ConfigError) -> Iterator[None]:
    """Turn what goes wrong with a database into one sentence of an error of ``kind``."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        raise kind(_sentence(url, getattr(cause, "orig", None) or cause or error)) from error


def _sentence(url: str, cause: BaseException) -> str:
    hint = "start the server or correct the address"
    if url.startswith("sqlite"):
        hint = "a damaged or foreign file is moved away, or another one named"
    return f"{KEY}={mask(url)} cannot be used: {mask(' '.join(str(cause).split()))}; {hint}, {KEY}=URL"


@contextmanager
def claim(url: str, study: str) -> Iterator[None]:
    """Be the only sweep on a study; the claim ends with this process, however that ends.

    Raises:
        ConfigError: Another sweep is at work on it.
    """
    taken = _lock_file(url, study) if url.startswith("sqlite") else _lock_row(url, study)
    with taken as free:
        if not free:
            raise ConfigError(
                f"hydra.sweeper.study_name={study}: another sweep is at work on this study in {mask(url)}: "
                "let it finish, or give this one a name of its own"
            )
        yield


def _lock_file(url: str, study: str) -> AbstractContextManager[bool]:
    from sqlalchemy.engine import make_url

    digest = sha256(study.encode())[:16]
    return file_lock(Path(f"{make_url(url).database}.{digest}.lock"), 0)


@contextmanager
def _lock_row(url: str, study: str) -> Iterator[bool]:
    backend: Any = connect(url)
    with ExitStack() as stack:
        lock = _Lock(backend.engine, study, stack)
        with explained(url):
            free = lock.take(0)
        if free:
            stack.callback(setattr, backend, "hold", None)
            backend.hold = lock.hold
        yield free


class _Lock:
    """The claim on a study, which belongs to a connection, and is taken anew where that was lost."""

    def __init__(self, engine: Engine, study: str, stack: ExitStack) -> None:
        self.engine, self.study = engine, study
        self._connection: Connection | None = None
        self._held = stack.enter_context(ExitStack())

    def take(self, seconds: float) -> bool:
        """Whether it is this process's, after waiting so long for another one."""
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        self._held.callback(connection.close)
        connection.detach()  # one that went back to the pool would keep the lock
        self._connection = connection
        return self._held.enter_context(advisory_lock(connection, self.study, seconds))

    def hold(self) -> None:
        """Take it again if its connection was lost.

        Raises:
            SweepError: Another sweep has it meanwhile.
            SQLAlchemyError: The database does not answer.
        """
        if self._answers():
            return
        self._held.close()
        if not self.take(BUSY_SECONDS):
            raise SweepError(
                f"the connection to the study's database was lost, and another sweep is at work on {self.study} since: "
                "let it finish; it goes on with the same trials"
            )

    def _answers(self) -> bool:
        from sqlalchemy import text
        from sqlalchemy.exc import SQLAlchemyError

        try:
            return self._connection is not None and self._connection.scalar(text("SELECT 1")) == 1
        except SQLAlchemyError:
            self._connection = None
            return False
