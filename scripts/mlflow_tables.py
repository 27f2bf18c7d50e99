"""Write the tables that the migrations of the installed MLflow make, which every new database is begun with.

    python scripts/mlflow_tables.py

They are used where exactly this MLflow is installed: run this again when constraints.txt names another one.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path

import mlflow
import sqlalchemy
from mlflow.store.db import utils

from loraloop.core.mlflow_database import TABLES, headed


def migrated() -> str:
    """The tables as SQL, made by MLflow's own migrations."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "mlflow.db"
        engine = sqlalchemy.create_engine(f"sqlite:///{file}")
        utils._initialize_tables(engine)
        engine.dispose()
        with contextlib.closing(sqlite3.connect(file)) as connection:
            return "\n".join(connection.iterdump()) + "\n"


if __name__ == "__main__":
    TABLES.write_text(headed(mlflow.__version__) + migrated(), encoding="utf-8")
    print(TABLES)
