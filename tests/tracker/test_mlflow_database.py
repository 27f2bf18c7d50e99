"""MLflow's database in a local folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from loraloop.errors import TrackingError
from loraloop.tracker.mlflow import Mlflow
from loraloop.tracker.mlflow_database import Database


def execute(database: Database, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(database.file)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def fingerprint(folder: Path) -> dict[str, str]:
    return {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.rglob("*") if f.is_file()}


class TestPrepare:
    """Making the database."""

    def test_four_processes_at_once_all_succeed(self, tmp_path):
        """Four processes that start a run in an empty folder at the same moment all log it to one experiment."""
        folder = tmp_path / "mlruns"
        context = multiprocessing.get_context("fork")  # MLflow is imported once, not in four processes
        importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
        together = context.Barrier(4)

        def log(number: int) -> None:
            together.wait()
            with Mlflow(folder=str(folder), system_metrics=False).start(f"run {number}") as run:
                run.metrics({"train/loss": number})

        processes = [context.Process(target=log, args=(number,)) for number in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        assert [process.exitcode for process in processes] == [0] * 4
        for number in range(4):
            assert Mlflow(folder=str(folder)).read(f"run {number}")["metrics"] == {"train/loss": number}

    def test_a_full_disk_leaves_nothing(self, tmp_path, full_disk):
        """When the database does not fit on the disk the error says so, and no half-made file remains."""
        database = Database(tmp_path / "mlruns")
        with full_disk(100_000), pytest.raises(TrackingError, match=r"mlflow\.db cannot be created.*nothing was left"):
            database.prepare("loraloop")
        assert [file.name for file in database.folder.iterdir()] == [".mlflow.lock"]
        assert not database.exists()

    def test_an_empty_file_is_replaced(self, template):
        """A file of 0 bytes, such as an interrupted copy leaves, is no obstacle."""
        Database(template).check()
        assert (template / "mlflow.db").stat().st_size > 0


class TestCheck:
    """Looking at a database without touching it."""

    def test_writes_nothing(self, tmp_path):
        """Checking a folder that does not exist yet does not make it."""
        Database(tmp_path / "deep" / "mlruns").check()
        assert list(tmp_path.iterdir()) == []

    def test_a_new_database_is_usable(self, folder):
        """What `prepare` made passes, and is not altered by the check."""
        before = fingerprint(folder)
        Database(folder).check()
        assert fingerprint(folder) == before

    def test_an_older_schema_is_not_migrated_unasked(self, folder):
        """The database of an older MLflow is left as it is; the message says both versions and the upgrade command."""
        database = Database(folder)
        execute(database, "UPDATE alembic_version SET version_num = '451aebb31d03'", "DROP TABLE webhook_events")
        before = fingerprint(folder)
        with pytest.raises(TrackingError, match=r"schema 451aebb31d03.*MLflow 3\..* works with \w+") as caught:
            database.prepare("loraloop")
        assert f"mlflow db upgrade {database.uri}" in str(caught.value)
        assert "tracker.folder" in str(caught.value)
        assert fingerprint(folder) == before

    def test_a_newer_schema_asks_for_the_newer_mlflow(self, folder):
        """A schema that the installed MLflow does not know cannot be upgraded, so the way out is another one."""
        execute(Database(folder), "UPDATE alembic_version SET version_num = 'ffffffffffff'")
        with pytest.raises(TrackingError, match=r"schema ffffffffffff.*install the newer MLflow that wrote it"):
            Database(folder).check()

    @pytest.mark.parametrize(
        "content", [b"not a database at all, but long enough to be one\n" * 99, b"SQLite format 3\0"]
    )
    def test_a_file_that_is_no_database_is_named(self, tmp_path, content):
        """Text, or a database cut off, is refused with its path and the way out, and stays as it was."""
        database = Database(tmp_path)
        database.file.write_bytes(content)
        with pytest.raises(TrackingError, match=r"mlflow\.db cannot be used.*move it away, or choose another folder"):
            database.check()
        assert database.file.read_bytes() == content

    def test_another_programs_database_is_refused(self, tmp_path):
        """A valid SQLite file without MLflow's tables is not filled with them."""
        execute(Database(tmp_path), "CREATE TABLE trials (number INTEGER)")
        with pytest.raises(TrackingError, match="is a database, but not MLflow's"):
            Database(tmp_path).check()

    def test_a_folder_in_the_files_place_is_refused(self, tmp_path):
        """A folder named mlflow.db is an error, not a crash."""
        Database(tmp_path).file.mkdir()
        with pytest.raises(TrackingError, match="cannot be used as MLflow's database"):
            Database(tmp_path).check()

    @pytest.mark.parametrize("parent", ["/proc", "file"])
    def test_a_folder_that_cannot_be_made_is_refused(self, tmp_path, parent):
        """Where no folder can be made, even by root, the error names the folder and ways out."""
        (tmp_path / "file").write_text("")
        with pytest.raises(TrackingError, match=r"cannot be written.*choose another folder, or use tracker=none"):
            Database(tmp_path / parent / "mlruns").check()

    def test_a_locked_database_is_an_error(self, folder, monkeypatch):
        """When another program holds the database for good, the check ends with an error instead of waiting."""
        monkeypatch.setattr("loraloop.tracker.mlflow_database.BUSY_SECONDS", 0.1)
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db")) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(TrackingError, match="database is locked"):
                Database(folder).check()

    @pytest.mark.parametrize("name", ["what?", "50%", "a#b"])
    def test_a_folder_that_no_address_can_hold_is_refused(self, tmp_path, name):
        """A character that would end the database's address early is named."""
        with pytest.raises(TrackingError, match=f"holds {'[?]' if '?' in name else '[%#]'}"):
            Database(tmp_path / name).check()
