"""Databases of version 1, as the loraloop of that time left them, brought up to date in place."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from loraloop.feedback import schema
from loraloop.feedback.settings import Feedback
from loraloop.source.sessions import reading
from waiting import spawn

OLD = Path(__file__).parent / "version1"
"""Dumps (``.dump`` of sqlite3, ``pg_dump --inserts``) of what version 0.1 had written."""
OPEN = """
from pathlib import Path
from loraloop.feedback.settings import Feedback
store = Feedback(**{values!r}).open()
print(len(store.all()), len(store.outcomes()))
"""


@pytest.fixture(params=["sqlite", "postgres"])
def old(request, tmp_path) -> Feedback:
    """The part, on a database of version 1 with two sessions, three ratings and a correction."""
    script = (OLD / f"{request.param}.sql").read_text()
    if request.param == "postgres":
        import psycopg

        url = request.getfixturevalue("fresh")
        with psycopg.connect(url) as connection:
            connection.execute(script)
        return Feedback(url=url, folder=tmp_path)
    connection = sqlite3.connect(tmp_path / "sessions.db")
    connection.executescript(script)
    connection.close()
    return Feedback(folder=tmp_path)


def shape(engine: sa.Engine) -> dict[str, object]:
    """Columns and indexes of the table of sessions."""
    inspector = sa.inspect(engine)
    columns = {column["name"]: str(column["type"]) for column in inspector.get_columns("sessions")}
    return columns | {index["name"]: index["column_names"] for index in inspector.get_indexes("sessions")}


def test_nothing_is_lost(old, make):
    """Every session, rating and correction is as it was, and new ones have conversation, client and rollout."""
    for _ in range(2):
        store = old.open()
        first, second = store.all()
        assert (first.rating.stars, first.implied, first.correction) == (2, 5, "3 heads, 1 tail")
        assert (second.prompt, second.status, second.conversation) == ("plain\0text", "error", None)
        assert [(each.session, each.stars, each.rater) for each in store.outcomes()] == [
            ("s1", 2, None),
            ("s2", None, None),
        ]
        with store.database.read() as connection:
            assert connection.execute(sa.select(schema.facts.c.version)).scalars().all() == [schema.VERSION]
        store.close()
    store = old.open()
    store.keep(make("s3", conversation="c", client="ann", rollout="r"))
    found = store.session("s3")
    assert (found.conversation, found.client, found.rollout) == ("c", "ann", "r")
    assert set(reading.read(store.database.url)[0]) == {"s1", "s2", "s3"}
    store.close()


def test_it_is_what_a_new_one_is(old, tmp_path):
    """After it columns and indexes are those of a database that was made today."""
    store = old.open()
    upgraded = shape(store.database.engine)
    store.close()
    url = None
    if old.url:
        import psycopg
        from sqlalchemy.engine import make_url

        name = f"{make_url(old.url).database}_today"
        with psycopg.connect(old.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        url = make_url(old.url).set(database=name).render_as_string(hide_password=False)
    made = Feedback(url=url, folder=tmp_path / "new").open()
    assert upgraded == shape(made.database.engine)
    made.close()


def test_several_processes_at_once(old):
    """Three processes that find a database of version 1 at the same time upgrade it once."""
    values = {"url": old.url, "folder": str(old.folder)}
    command = [sys.executable, "-c", OPEN.format(values=values)]
    started = [spawn(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)]
    assert [process.communicate() for process in started] == [("2 2\n", "")] * 3


def test_an_upgrade_that_fails_changes_nothing(old, monkeypatch):
    """It is one transaction: cut in the middle, the database is of version 1 still, and the next one succeeds."""

    def cut(connection):
        connection.exec_driver_sql("ALTER TABLE sessions ADD COLUMN conversation VARCHAR")
        raise RuntimeError("cut")

    with monkeypatch.context() as patch:
        patch.setattr(schema, "upgrade", cut)
        with pytest.raises(RuntimeError):
            old.open()
    store = old.open()
    assert len(store.outcomes()) == 2
    store.close()


def test_training_reads_it_as_it_is(old):
    """A database of version 1 that no server has opened since is read for training, and stays of version 1."""
    from loraloop.feedback.database import address
    from loraloop.source.sessions.database import read

    url = address(old.url, old.folder)
    first, second = read(url)
    assert (first.stars, first.correction, first.answered) == (2, "3 heads, 1 tail", "ocr@7")
    assert (second.task, second.success, second.rating) == ("plain\0text", False, None)
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(schema.facts.c.version)) == 1
    engine.dispose()
