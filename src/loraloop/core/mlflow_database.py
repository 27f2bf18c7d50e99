"""Making MLflow's SQLite database in a local folder: whole, once, and by one process."""

from __future__ import annotations

import contextlib
import functools
import logging
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic
from loraloop.core.locks import required_lock
from loraloop.errors import LoraloopError

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

LOCK_SECONDS = 300
TABLES = Path(__file__).with_name("mlflow_tables.sql")
"""What the migrations of one version of MLflow make of an empty database; ``scripts/mlflow_tables.py`` writes it."""


def is_made(file: Path) -> bool:
    """Whether there is a file that is not empty."""
    return file.exists() and (not file.is_file() or file.stat().st_size > 0)


def make(folder: Path, experiment: str, error: type[LoraloopError]) -> None:
    """Make ``mlflow.db`` in ``folder`` where it is missing, with an experiment and a folder ``artifacts``.

    MLflow migrates an empty database on first contact: in a second of a processor, and not safely when several
    processes do it at once. So the file is made beside its place under a lock, from :data:`TABLES` where they are
    those of the installed version; a process that is killed meanwhile leaves no database behind.

    Raises:
        LoraloopError: An ``error``: another process holds the folder's lock.
        OSError: The folder cannot be written.
        MlflowException: The database cannot be made; so do SQLAlchemyError and sqlite3.Error.
    """
    file = folder / "mlflow.db"
    if is_made(file):
        return
    with required_lock(folder / ".mlflow.lock", LOCK_SECONDS, error):
        if not is_made(file):
            _make(file, experiment)


def mismatch(uri: str, found: str) -> str | None:
    """What is wrong with a database whose schema is ``found``; ``None`` if the installed MLflow works with it.

    MLflow itself migrates a database that lacks a table, without asking.
    """
    import mlflow

    expected, scripts = _schemas()
    if found == expected:
        return None
    older = any(script.revision == found for script in scripts.walk_revisions())
    way_out = f"back it up and run `mlflow db upgrade {uri}`" if older else "install the newer MLflow that wrote it"
    return f"has schema {found}, but the installed MLflow {mlflow.__version__} works with {expected}: {way_out}"


@functools.cache
def _schemas() -> tuple[str | None, ScriptDirectory]:
    """The schema that the installed MLflow works with, and its migrations."""
    import mlflow
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
    return scripts.get_current_head(), scripts


def silence() -> None:
    """Keep MLflow from logging each table that it makes, and the traceback of every database error that it raises."""
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)


def _make(file: Path, experiment: str) -> None:
    # MLflow has no public function that makes a database without starting a server.
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    silence()
    artifacts = (file.parent / "artifacts").as_uri()
    with tempfile.TemporaryDirectory(dir=file.parent, prefix=".mlflow.") as scratch:
        beside = Path(scratch) / file.name
        with _unsynced(beside):
            _copy_tables(beside)
            store: Any = SqlAlchemyStore(f"sqlite:///{beside}", artifacts)  # type: ignore[no-untyped-call]
        if experiment != "Default":  # which MLflow makes itself
            store.create_experiment(experiment, artifacts)
        store.engine.dispose()
        with atomic.write(file) as stream:
            stream.write(beside.read_bytes())


def headed(version: str) -> str:
    """The first line of :data:`TABLES` for a version of MLflow."""
    return f"-- made by the migrations of MLflow {version}\n"


def _copy_tables(file: Path) -> None:
    """Begin the database with the known tables, if they are those of the installed MLflow; it migrates it otherwise."""
    import mlflow

    known = TABLES.read_text(encoding="utf-8")
    if known.startswith(headed(mlflow.__version__)):
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("PRAGMA synchronous = OFF")  # as in :func:`_unsynced`
            connection.executescript(known)


@contextlib.contextmanager
def _unsynced(file: Path) -> Iterator[None]:
    """Let SQLite not sync ``file`` in each of hundreds of migrations; its maker syncs it at the end."""
    import sqlalchemy

    def relax(connection: Any, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            opened = connection.execute("PRAGMA database_list").fetchone()[2]
            if opened and Path(opened) == file.resolve():
                connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", relax)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", relax)
