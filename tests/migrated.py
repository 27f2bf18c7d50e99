"""MLflow's empty database, migrated once in a session of tests: whatever needs a new one gets a copy of its tables.

The migrations are MLflow's own and take a second of a processor; what is in the file afterwards is the same.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Any

from filelock import FileLock

from loraloop.core import mlflow_database

TABLES = "LORALOOP_TEST_TABLES"
"""The environment variable that names the copied file; where it is not set, every database is migrated."""


def install(make: Any = mlflow_database._make) -> None:
    """Let this process copy the tables when the package makes a database."""

    def copying(file: Path, experiment: str) -> None:
        from mlflow.store.db import utils

        if not hasattr(utils._initialize_tables, "migrate"):
            utils._initialize_tables = _Copying(utils._initialize_tables)
        make(file, experiment)

    mlflow_database._make = copying


class _Copying:
    """MLflow's function that makes the tables of an empty database, which it does once."""

    def __init__(self, migrate: Any) -> None:
        self.migrate = migrate

    def __call__(self, engine: Any) -> None:
        from mlflow.store.db.utils import _is_empty_database

        if not (place := os.environ.get(TABLES)) or engine.dialect.name != "sqlite" or not _is_empty_database(engine):
            self.migrate(engine)
            return
        self._made(Path(place))
        with (
            contextlib.closing(engine.raw_connection()) as target,
            contextlib.closing(sqlite3.connect(place)) as source,
        ):
            source.backup(target.driver_connection)

    def _made(self, file: Path) -> None:
        import sqlalchemy

        with FileLock(f"{file}.lock"):
            if file.exists():
                return
            beside = file.with_suffix(".half")
            engine = sqlalchemy.create_engine(f"sqlite:///{beside}")
            self.migrate(engine)
            engine.dispose()
            beside.replace(file)
