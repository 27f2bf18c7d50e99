"""MLflow's SQLite database in a local folder, verified before MLflow touches it."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from loraloop.core import mlflow_database
from loraloop.errors import TrackingError

BUSY_SECONDS = 8

UNUSABLE = "?#%"
"""Characters that do not survive in an SQLite URI."""


class Database:
    """``mlflow.db`` and ``artifacts/`` in ``folder``.

    MLflow migrates the database of an older MLflow without asking, so an existing one is looked at with plain SQLite
    first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.file = self.folder / "mlflow.db"
        self.artifacts = self.folder / "artifacts"
        self.uri = f"sqlite:///{self.file}"

    def exists(self) -> bool:
        """Whether there is a file that is not empty."""
        return mlflow_database.is_made(self.file)

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
        if said := mlflow_database.mismatch(self.uri, found):
            raise TrackingError(f"{self.file} {said}, or choose another folder (tracker.folder=...)")

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
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self.check()
        try:
            with self._writing():
                mlflow_database.make(self.folder, experiment, TrackingError)
        except (SQLAlchemyError, sqlite3.Error, MlflowException) as error:
            raise TrackingError(f"{self.file} cannot be created: {first_line(error)}; nothing was left") from error

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrackingError(
                f"tracker.folder={self.folder} cannot be written ({error.strerror or error}): "
                "free or permit it, choose another folder, or use tracker=none"
            ) from error

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


def first_line(error: BaseException) -> str:
    """The line of an error's message that says what happened; the others repeat it with SQL or a traceback."""
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith("(raised as a result")]
    return lines[0] if lines else type(error).__name__
