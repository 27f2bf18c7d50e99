"""Making MLflow's database."""

from __future__ import annotations

import contextlib
import importlib.metadata
import multiprocessing
import sqlite3

from loraloop.core import mlflow_database
from loraloop.errors import RegistryError, TrackingError
from scripts import script

WAY_OUT = "python scripts/mlflow_tables.py writes them anew"


def experiments(folder):
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        return dict(connection.execute("SELECT name, artifact_location FROM experiments"))


def lines(sql):
    return sorted(line.strip(", ") for line in sql.splitlines())


def test_tracker_and_registry_at_once_make_one_whole_database(tmp_path):
    """Two processes that want different experiments make one whole database, with nothing half-made beside it."""
    folder = tmp_path / "mlruns"
    context = multiprocessing.get_context("fork")  # MLflow is imported once, not in two processes
    importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    together = context.Barrier(2)

    def make(experiment, error) -> None:
        together.wait()
        mlflow_database.make(folder, experiment, error)

    wanted = [("loraloop", TrackingError), ("Default", RegistryError)]
    processes = [context.Process(target=make, args=each) for each in wanted]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(path.name for path in folder.iterdir()) == [".mlflow.lock", "mlflow.db"]
    made = experiments(folder)
    assert made.keys() >= {"Default"}
    assert all(place.startswith((folder / "artifacts").as_uri()) for place in made.values())
    mlflow_database.make(folder, "another", TrackingError)
    assert experiments(folder) == made


def test_the_known_tables_are_those_of_the_migrations():
    """A new database begins with what the installed MLflow's migrations make, which order indexes by chance."""
    head, _, known = mlflow_database.TABLES.read_text().partition("\n")
    assert f"{head}\n" == mlflow_database.headed(importlib.metadata.version("mlflow")), WAY_OUT
    with script("mlflow_tables") as made:
        assert lines(known) == lines(made.migrated()), WAY_OUT


def test_tables_of_another_mlflow_are_migrated(tmp_path, monkeypatch):
    """Where the known tables are not those of the installed MLflow, it makes them itself."""
    monkeypatch.setattr(mlflow_database, "headed", lambda version: f"-- another than {version}")
    mlflow_database.make(tmp_path, "loraloop", TrackingError)
    assert experiments(tmp_path).keys() == {"Default", "loraloop"}
