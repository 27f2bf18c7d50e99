"""Making MLflow's database."""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import sqlite3

import pytest

from loraloop.core import mlflow_database
from loraloop.errors import RegistryError, TrackingError

pytestmark = pytest.mark.usefixtures("own_tables")


def experiments(folder):
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        return dict(connection.execute("SELECT name, artifact_location FROM experiments"))


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
