"""A database that is made once, since MLflow's migrations take seconds; and a full disk."""

from __future__ import annotations

import contextlib
import resource
import shutil
import sqlite3

import pytest

from loraloop.tracker.mlflow_database import Database


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A folder with a new database, made where an empty file was left."""
    folder = tmp_path_factory.mktemp("template")
    (folder / "mlflow.db").touch()
    Database(folder).prepare("loraloop")
    return folder


@pytest.fixture
def folder(template, tmp_path):
    """A folder of the test's own, with a database in which nothing is tracked yet."""
    folder = tmp_path / "mlruns"
    folder.mkdir()
    shutil.copy(template / "mlflow.db", folder)
    with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as connection:
        location = Database(folder).artifacts.as_uri()
        connection.execute("UPDATE experiments SET artifact_location = ?", (location,))
        connection.commit()
    return folder


@pytest.fixture
def full_disk():
    """A context in which no file can grow beyond so many bytes: what a full disk does to a database."""

    @contextlib.contextmanager
    def limited(room: int):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limited
