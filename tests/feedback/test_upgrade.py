"""Databases of every earlier version, as the loraloop of that time left them, brought up to date in place."""

from __future__ import annotations

import itertools
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa

from loraloop.feedback import schema
from loraloop.feedback.settings import Feedback
from loraloop.records import Rating
from loraloop.source.sessions import reading
from waiting import spawn

OLD = Path(__file__).parent / "version1"
"""Dumps (``.dump`` of sqlite3, ``pg_dump --inserts``) of what version 0.1 had written."""
LATER = {
    2: """
        ALTER TABLE sessions ADD COLUMN conversation VARCHAR;
        ALTER TABLE sessions ADD COLUMN client VARCHAR;
        ALTER TABLE sessions ADD COLUMN rollout VARCHAR;
        DROP INDEX ix_sessions_answered;
        CREATE INDEX ix_sessions_answered_time ON sessions (answered, time);
        CREATE INDEX ix_sessions_rollout_time ON sessions (rollout, time);
        UPDATE sessions SET conversation = 'c', client = 'ann', rollout = 'r' WHERE id = 's2';
        UPDATE loraloop SET version = 2;
    """,
    3: """
        ALTER TABLE sessions ADD COLUMN asked_key VARCHAR;
        ALTER TABLE ratings ADD COLUMN key VARCHAR;
        CREATE INDEX ix_ratings_kind_time ON ratings (kind, time);
        UPDATE sessions SET asked_key = 'app' WHERE id = 's1';
        UPDATE ratings SET key = 'desk' WHERE session = 's1' AND kind = 'explicit';
        UPDATE loraloop SET version = 3;
    """,
    4: """
        ALTER TABLE sessions ADD COLUMN tools JSON;
        UPDATE sessions SET tools = '[{"type": "function", "function": {"name": "read"}}]' WHERE id = 's1';
        UPDATE loraloop SET version = 4;
    """,
}
"""What tables of a version had that those of the version before had not, with values that it kept there."""
OPEN = """
from pathlib import Path
from loraloop.feedback.settings import Feedback
store = Feedback(**{values!r}).open()
print(len(store.all()), len(store.outcomes()))
"""


def written(kind: str, version: int, request: pytest.FixtureRequest, folder: Path) -> Feedback:
    """The part, on a database of that version with two sessions, three ratings and a correction."""
    more = "".join(LATER[each] for each in range(2, version + 1))
    script = (OLD / f"{kind}.sql").read_text()
    if kind == "postgres":
        import psycopg

        url = request.getfixturevalue("fresh")
        with psycopg.connect(url) as connection:
            connection.execute(script)
            if more:
                connection.execute(more)
        return Feedback(url=url, folder=folder)
    connection = sqlite3.connect(folder / "sessions.db")
    connection.executescript(script + more)
    connection.close()
    return Feedback(folder=folder)


@pytest.fixture(params=["sqlite", "postgres"])
def old(request, tmp_path) -> Feedback:
    """The part, on a database of version 1."""
    return written(request.param, 1, request, tmp_path)


@pytest.fixture(params=itertools.product(["sqlite", "postgres"], [1, 2, 3, 4]), ids=lambda each: f"{each[0]}-{each[1]}")
def older(request, tmp_path) -> tuple[Feedback, int]:
    """The part, on a database of each earlier version, and the version."""
    kind, version = request.param
    return written(kind, version, request, tmp_path), version


def shape(engine: sa.Engine) -> dict[str, object]:
    """Columns and indexes of the tables."""
    inspector, found = sa.inspect(engine), {}
    for table in inspector.get_table_names():
        found |= {f"{table}.{column['name']}": str(column["type"]) for column in inspector.get_columns(table)}
        found |= {index["name"]: index["column_names"] for index in inspector.get_indexes(table)}
    return found


def test_nothing_is_lost(older, make):
    """Every session, rating and correction is as it was, and new ones have what the tables of today hold."""
    old, version = older
    told = ("c", "ann") if version >= 2 else ("s2", None)
    keys = ("app", "desk") if version >= 3 else (None, None)
    for _ in range(2):
        store = old.open()
        first, second = store.all()
        assert (first.rating.stars, first.implied, first.correction) == (2, 5, "3 heads, 1 tail")
        assert (second.prompt, second.status, second.conversation_id) == ("plain\0text", "error", None)
        assert (first.asked_key, first.rated_key) == keys
        assert (first.tools is not None) == (version >= 4)
        assert [(each.session, each.stars) for each in store.outcomes()] == [("s1", 2), ("s2", None)]
        assert (store.outcomes()[1].conversation, store.outcomes()[1].rater) == told
        with store.database.read() as connection:
            assert connection.execute(sa.select(schema.facts.c.version)).scalars().all() == [schema.VERSION]
        store.close()
    store = old.open()
    store.keep(make("s3", conversation="c", client="ann", rollout="r", asked_key="app"))
    store.rate("s3", Rating(stars=4), "desk")
    found = store.session("s3")
    assert (found.conversation, found.client, found.rollout) == ("c", "ann", "r")
    assert (found.asked_key, found.rated_key) == ("app", "desk")
    store.rate("s1", Rating(stars=3), level="conversation")
    assert store.conversation_ratings(store.all()) == {"s1": Rating(stars=3)}
    assert set(reading.read(store.database.url)[0]) == {"s1", "s2", "s3"}
    store.close()


def test_it_is_what_a_new_one_is(older, tmp_path):
    """After it tables, columns and indexes are those of a database that was made today."""
    old, _ = older
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

    def cut(connection, found):
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
