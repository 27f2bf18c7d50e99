"""MLflow's SQLite database in a local folder: created whole and once, verified before MLflow touches it."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from loraloop.core import atomic
from loraloop.errors import TrackingError

LOCK_SECONDS = 120
BUSY_SECONDS = 8

UNUSABLE = "?#%"
"""Characters that do not survive in an SQLite URI."""


class Database:
    """``mlflow.db`` and ``artifacts/`` in ``folder``.

    MLflow migrates an empty database on first contact, slowly and not safely when several processes do it at once, and
    an old one without asking. So the file is made beside its place under a lock, and an existing one is looked at with
    plain SQLite first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.file = self.folder / "mlflow.db"
        self.artifacts = self.folder / "artifacts"
        self.uri = f"sqlite:///{self.file}"

    def exists(self) -> bool:
        """Whether there is a file that is not empty."""
        return self.file.exists() and (not self.file.is_file() or self.file.stat().st_size > 0)

    def verify(self) -> None:
        """Find out whether the installed MLflow can read the database, without writing anything.

        Raises:
            TrackingError: The file is not a database of the installed MLflow.
        """
        with self._opened() as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if "alembic_version" not in tables:
                raise TrackingError(
                    f"{self.file} is a database, but not MLflow's: "
                    "move it away or choose another folder (tracker.folder=...)"
                )
            found = str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
        self._compare(found)

    def check(self) -> None:
        """Find out whether the database can be written, or made, without writing anything.

        Raises:
            TrackingError: The folder cannot be written, or the file is not a database of the installed MLflow.
        """
        if bad := sorted(set(str(self.folder)) & set(UNUSABLE)):
            raise TrackingError(
                f"tracker.folder={self.folder} holds {' '.join(bad)}, which a database address cannot: "
                "choose a folder without it"
            )
        parent = next(parent for parent in (self.folder, *self.folder.parents) if parent.exists())
        with self._writing(), tempfile.TemporaryFile(dir=parent):
            pass
        if self.exists():
            self.verify()
            with self._writing(), self.file.open("r+b"), self._opened() as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")

    def prepare(self, experiment: str) -> None:
        """Make the database, with an experiment that keeps its artifacts in ``artifacts/``, unless it is there.

        Raises:
            TrackingError: As for `check`; an interrupted or failed creation leaves no database behind.
        """
        self.check()
        if self.exists():
            return
        with self.locked():
            if not self.exists():
                self._create(experiment)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder's lock, so that only one process creates something in it."""
        import filelock

        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".mlflow.lock", timeout=LOCK_SECONDS)
            try:
                held = lock.acquire()
            except filelock.Timeout as error:
                raise TrackingError(
                    f"another process has held {lock.lock_file} for {LOCK_SECONDS} s: end it and start again"
                ) from error
            with held:
                yield

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrackingError(
                f"tracker.folder={self.folder} cannot be written ({error.strerror or error}): "
                "free or permit it, choose another folder, or use tracker=none"
            ) from error

    def _create(self, experiment: str) -> None:
        from mlflow.exceptions import MlflowException
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
        from sqlalchemy.exc import SQLAlchemyError

        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".mlflow.") as scratch:
            beside = Path(scratch) / self.file.name
            try:
                with _unsynced(beside):
                    store: Any = SqlAlchemyStore(f"sqlite:///{beside}", self.artifacts.as_uri())  # type: ignore[no-untyped-call]
                if experiment != "Default":  # which MLflow makes itself
                    store.create_experiment(experiment, self.artifacts.as_uri())
                store.engine.dispose()
            except (SQLAlchemyError, sqlite3.Error, MlflowException) as error:
                raise TrackingError(f"{self.file} cannot be created: {first_line(error)}; nothing was left") from error
            with atomic.write(self.file) as stream:
                stream.write(beside.read_bytes())

    @contextlib.contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        try:
            address = f"{self.file.as_uri()}?mode=rw"
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as connection:
                connection.isolation_level = None
                yield connection
        except sqlite3.Error as error:
            raise TrackingError(
                f"{self.file} cannot be used as MLflow's database ({error}): "
                "repair or move it away, or choose another folder (tracker.folder=...)"
            ) from error

    def _compare(self, found: str) -> None:
        import mlflow
        from alembic.script import ScriptDirectory

        scripts = ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))
        expected = scripts.get_current_head()
        if found == expected:
            return
        older = any(script.revision == found for script in scripts.walk_revisions())
        way_out = (
            f"back it up and run `mlflow db upgrade {self.uri}`" if older else "install the newer MLflow that wrote it"
        )
        raise TrackingError(
            f"{self.file} has schema {found}, but the installed MLflow {mlflow.__version__} works with {expected}: "
            f"{way_out}, or choose another folder (tracker.folder=...)"
        )


def first_line(error: BaseException) -> str:
    """The line of an error's message that says what happened; the others repeat it with SQL or a traceback."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("(raised as a result")]
    return lines[0] if lines else type(error).__name__


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
