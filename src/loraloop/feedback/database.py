"""Connections to the database of sessions: commits that are synced to disk, bounded waits, errors in plain words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, SQLAlchemyError

from loraloop.core.extras import require
from loraloop.core.locks import required_lock
from loraloop.errors import ConfigError, LoraloopError, StoreError
from loraloop.feedback import schema

CONNECT_SECONDS = 4
READ_SECONDS = 60
"""Longest statement of PostgreSQL that only reads; in a transaction that writes it is twice ``busy_seconds``."""
CACHE_KIB = 256
"""SQLite's page cache of one connection: its 2 MiB fill slowly, which looks like a leak."""


def address(url: str | None, folder: Path) -> URL:
    """The database at ``url``, or ``sessions.db`` in ``folder``.

    Raises:
        ConfigError: ``url`` names neither a SQLite file nor a PostgreSQL database.
    """
    if url is None:
        return URL.create("sqlite", database=str((folder / "sessions.db").absolute()))
    way_out = "sqlite:///FILE or postgresql://USER@HOST/DATABASE"
    try:
        made = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigError(f"feedback.url is no database URL: {way_out}") from None
    kind = made.get_backend_name()
    if kind == "sqlite" and made.database and ":memory:" not in made.database:
        return made.set(database=str(Path(made.database).absolute()))
    if kind == "postgresql":
        return made.set(drivername="postgresql+psycopg")
    raise ConfigError(f"feedback.url={made.render_as_string()}: sessions are kept in a file or a server: {way_out}")


class Database:
    """One database of sessions. Opening it makes missing tables and brings those of earlier versions up to date.

    SQLite runs in WAL mode with ``synchronous=FULL``: a commit has been synced when it returns (SQLite, "PRAGMA
    synchronous"). ``synchronous_commit=on`` gives the same on PostgreSQL, whose connections end within seconds when
    the other side is gone.

    Args:
        url: One of :func:`address`.
        busy_seconds: How long a write waits while another process writes.
    """

    def __init__(self, url: URL, busy_seconds: float = 5.0) -> None:
        self.url, self.busy_seconds = url, busy_seconds
        self.engine = _sqlite(url, busy_seconds) if url.get_backend_name() == "sqlite" else _postgres(url, busy_seconds)
        sa.event.listen(self.engine, "begin", _begin)
        self._writing = self.engine.execution_options(begin=_begin_writing(url, busy_seconds))
        with self.explained(ConfigError), self._alone(busy_seconds):
            self._make()

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to read with.

        Raises:
            StoreError: The database cannot be read.
        """
        with self.explained(), self.engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: on disk when the block ends, undone if it raises.

        On SQLite it has the file's one write lock from its beginning.

        Raises:
            StoreError: It could not be begun or committed.
            IntegrityError: A row violates a constraint, such as a second session of one id.
        """
        with self.explained(), self._writing.begin() as connection:
            yield connection

    def compact(self) -> None:
        """Bring the log of SQLite into the file, so that nothing that was deleted is left in it.

        A connection that reads meanwhile keeps what it reads there until the next time.

        Raises:
            StoreError: It cannot be done.
        """
        if self.url.get_backend_name() == "sqlite":
            with self.explained(), self.engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Give every connection back."""
        self.engine.dispose()

    @contextlib.contextmanager
    def explained(self, kind: type[LoraloopError] = StoreError) -> Iterator[None]:
        """Raise every error of the database as an error of ``kind`` in one sentence; ``IntegrityError`` passes."""
        try:
            yield
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise kind(self._sentence(getattr(error, "orig", None) or error)) from error

    @contextlib.contextmanager
    def _alone(self, busy_seconds: float) -> Iterator[None]:
        # SQLite does not wait for its turn to switch a new file to WAL: it refuses at once ("database is locked").
        if self.url.get_backend_name() == "sqlite":
            with required_lock(Path(f"{self.url.database}.lock"), busy_seconds, ConfigError):
                yield
        else:
            yield

    def _make(self) -> None:
        with self._writing.begin() as connection:
            if self.url.get_backend_name() == "postgresql":
                # Of two processes that would make the same tables at once, one waits; an upgrade may take its time.
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('loraloop sessions'))")
                connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
            schema.metadata.create_all(connection)
            found = connection.scalar(sa.select(schema.facts.c.version))
            if found is None:
                connection.execute(schema.facts.insert().values(version=schema.VERSION))
            elif found < schema.VERSION:
                schema.upgrade(connection, found)
            elif found > schema.VERSION:
                raise ConfigError(
                    f"{self.name} holds tables of version {found}, and this loraloop reads version {schema.VERSION}: "
                    "use the loraloop that wrote them, or another file with feedback.url=URL"
                )

    @property
    def name(self) -> str:
        """The URL without its password, for messages."""
        return self.url.render_as_string(hide_password=True)

    def _sentence(self, cause: BaseException) -> str:
        said = str(cause).strip().partition("\n")[0].rstrip(".")  # PostgreSQL quotes the statement on later lines
        if any(sign in said for sign in ("is full", "disk I/O", "No space left")):
            hint = "free some space; nothing was half-written"
        elif "locked" in said or "timeout" in said:
            hint = "another program holds it: end that, or raise feedback.busy_seconds"
        elif "not a database" in said or "malformed" in said:
            hint = "restore it from a copy, or name another file with feedback.url"
        elif self.url.get_backend_name() == "sqlite":
            hint = "see that the file and its folder can be read and written, or correct feedback.url"
        else:
            hint = "start the server or correct feedback.url"
        return f"{self.name} cannot be used: {said}; {hint}"


def _begin_writing(url: URL, busy_seconds: float) -> str:
    if url.get_backend_name() == "sqlite":
        return "BEGIN IMMEDIATE"
    return f"SET LOCAL statement_timeout = {2 * _milliseconds(busy_seconds)}"  # the wait for a lock counts too


def _sqlite(url: URL, busy_seconds: float) -> Engine:
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, connect_args={"timeout": busy_seconds})

    @sa.event.listens_for(engine, "connect")
    def _durable(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where _begin says
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            f"cache_size=-{CACHE_KIB}",
            "secure_delete=ON",  # what is deleted is overwritten
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _postgres(url: URL, busy_seconds: float) -> Engine:
    require("psycopg", "postgres")
    wait = _milliseconds(busy_seconds)
    options = f"-c synchronous_commit=on -c lock_timeout={wait} -c statement_timeout={1000 * READ_SECONDS}"
    alive = {"keepalives_idle": 2, "keepalives_interval": 2, "keepalives_count": 2, "tcp_user_timeout": wait}
    return sa.create_engine(
        url, pool_pre_ping=True, connect_args={"connect_timeout": CONNECT_SECONDS, "options": options, **alive}
    )


def _begin(connection: Connection) -> None:
    if begin := connection.get_execution_options().get("begin"):
        connection.exec_driver_sql(begin)


def _milliseconds(seconds: float) -> int:
    return max(1, round(1e3 * seconds))
