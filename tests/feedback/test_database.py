"""Databases that are full, locked, damaged, foreign or away, and processes that die while they write."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from loraloop.errors import ConfigError, StoreError
from loraloop.feedback import schema
from loraloop.feedback.settings import Feedback
from waiting import spawn

WRITER = """
import sys, itertools
from loraloop.feedback.settings import Feedback
from loraloop.records import Session

store = Feedback(**{settings!r}).open()
for number in itertools.count():
    store.keep(Session(id=f"{{sys.argv[1]}}{{number}}", time="2026-03-02T11:00:00.000+00:00", asked="base",
                      answered="base", role=None, prompt="p" * 5000, answer="a", status="ok", duration=1.0,
                      first_token=None, prompt_tokens=1, completion_tokens=1))
    print(f"{{sys.argv[1]}}{{number}}", flush=True)
"""


def values(settings: Feedback) -> dict[str, str | None]:
    return {"url": settings.url, "folder": str(settings.folder)}


@pytest.mark.fault("kill -9", "serve", "every acknowledged session is there, none is half")
def test_a_killed_process_loses_nothing_that_it_acknowledged(settings):
    """Of a process that is killed with SIGKILL while it writes, every session that it acknowledged is there."""
    command = [sys.executable, "-c", WRITER.format(settings=values(settings)), "w"]
    writer = spawn(command, stdout=subprocess.PIPE)
    acknowledged = [writer.stdout.readline().strip() for _ in range(20)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    store = settings.open()
    found = store.all()
    store.close()
    assert set(acknowledged) <= {each.id for each in found}
    assert len(found) - len(acknowledged) <= 1, "only the one that it was about to acknowledge"
    assert all(each.implied == 5 for each in found), "never half a session"


def test_several_processes_begin_and_write_at_once(settings):
    """Three processes that make the tables and write at the same time do not disturb each other."""
    command = [sys.executable, "-c", WRITER.format(settings=values(settings))]
    writers = [spawn([*command, name], stdout=subprocess.PIPE) for name in "abc"]
    acknowledged = [writer.stdout.readline().strip() for _ in range(5) for writer in writers]
    for writer in writers:
        writer.kill()
        writer.communicate()
    assert {f"{name}{number}" for name in "abc" for number in range(5)} == set(acknowledged)
    store = settings.open()
    assert set(acknowledged) <= {each.id for each in store.all()}
    store.close()


def test_a_commit_is_synced(settings):
    """Every connection commits to disk: WAL with FULL in SQLite, synchronous_commit in PostgreSQL."""
    store = settings.open()
    with store.database.read() as connection:
        if store.database.url.get_backend_name() == "sqlite":
            found = [connection.scalar(sa.text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")]
            assert found == ["wal", 2]
        else:
            assert connection.scalar(sa.text("SHOW synchronous_commit")) == "on"
    store.close()


@pytest.mark.fault(
    "disk full",
    "serve",
    "the session is refused, earlier ones stay readable",
    "database or disk is full; free some space; nothing was half-written",
)
def test_a_full_disk(file, make):
    """When no page is left the session is refused, nothing of it is there, and the earlier ones stay readable."""
    file.keep(make("before"))

    @sa.event.listens_for(file.database.engine, "begin")
    def limit(connection):
        pages = connection.scalar(sa.text("PRAGMA page_count"))
        connection.execute(sa.text(f"PRAGMA max_page_count = {pages}"))

    with pytest.raises(StoreError, match="full; free some space"):
        file.keep(make("large", prompt="p" * 1_000_000))
    assert [each.id for each in file.all()] == ["before"]


def test_a_locked_database(tmp_path, make):
    """While another program holds the file, a session is refused after the time that is set, and kept afterwards."""
    store = Feedback(folder=tmp_path, busy_seconds=0.1).open()
    other = sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreError, match=r"locked; another program holds it.*feedback\.busy_seconds"):
        store.keep(make())
    other.execute("ROLLBACK")
    other.close()
    store.keep(make())
    assert [each.id for each in store.all()] == ["s1"]
    store.close()


def test_a_locked_table_in_postgres(fresh, tmp_path, make):
    """A PostgreSQL table that another session has locked is given up after the time that is set."""
    import psycopg

    store = Feedback(url=fresh, folder=tmp_path, busy_seconds=0.1).open()
    with psycopg.connect(fresh) as other:
        other.execute("LOCK TABLE sessions")
        with pytest.raises(StoreError, match="lock timeout; another program holds it"):
            store.keep(make())
    store.keep(make())
    store.close()


@pytest.mark.parametrize("content", [b"no database at all " * 100, b"\0" * 8192])
def test_a_file_that_is_no_database(tmp_path, content):
    """A damaged file is named in one sentence before any work, and is left as it was."""
    (tmp_path / "sessions.db").write_bytes(content)
    with pytest.raises(ConfigError, match=r"sessions\.db cannot be used: file is not a database"):
        Feedback(folder=tmp_path).check()
    assert (tmp_path / "sessions.db").read_bytes() == content


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("database or disk is full", "free some space; nothing was half-written"),
        ("disk I/O error", "free some space; nothing was half-written"),
        ('could not extend file "base/1": No space left on device', "free some space; nothing was half-written"),
        ("database disk image is malformed", "restore it from a copy, or name another file with feedback.url"),
        ("file is not a database", "restore it from a copy, or name another file with feedback.url"),
        ("unable to open database file", "see that the file and its folder can be read and written, or correct"),
    ],
)
def test_what_an_error_leads_to(file, said, hint):
    """Only a damaged or foreign file is to be replaced: a disk that is full, or a folder without rights, leaves it."""
    error = sa.exc.OperationalError("SELECT 1", {}, sqlite3.OperationalError(said))
    with pytest.raises(StoreError) as told, file.database.explained():
        raise error
    assert f"{said}; {hint}" in str(told.value)


def test_tables_of_another_version(settings):
    """A database that another loraloop wrote is not touched."""
    store = settings.open()
    with store.database.write() as connection:
        connection.execute(sa.text("UPDATE loraloop SET version = 99"))
    store.close()
    with pytest.raises(ConfigError, match=f"of version 99, and this loraloop reads version {schema.VERSION}"):
        settings.open()


def test_a_server_that_is_away(tmp_path):
    """A PostgreSQL that does not answer is told before any work, without its password."""
    with pytest.raises(ConfigError, match="cannot be used") as told:
        Feedback(url="postgresql://me:secret@127.0.0.1:9/x", folder=tmp_path).check()
    assert "secret" not in str(told.value)


def test_looking_makes_nothing(tmp_path):
    """To check the part, or to ask for a store that must be there, makes no file."""
    part = Feedback(folder=tmp_path / "mlruns")
    part.check()
    with pytest.raises(ConfigError, match="nothing was served yet"):
        part.existing()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["mysql://host/db", "sessions.db", "sqlite://", "postgresql:/typo"])
def test_urls_of_something_else(url):
    """Only SQLite files and PostgreSQL databases are taken."""
    with pytest.raises(ValueError, match="postgresql://USER@HOST/DATABASE"):
        Feedback(url=url)


def test_a_file_by_url(tmp_path, make):
    """A SQLite URL names the file."""
    store = Feedback(url=f"sqlite:///{tmp_path}/kept.sqlite", folder=Path(tmp_path)).open()
    store.keep(make())
    store.close()
    assert (tmp_path / "kept.sqlite").exists()
