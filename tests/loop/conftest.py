"""The loop's store in a SQLite file and in a real PostgreSQL, beside the sessions."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from loraloop.feedback.database import Database
from loraloop.feedback.settings import Feedback
from loraloop.loop.store import LoopStore

COUNT = itertools.count()


@pytest.fixture(params=("sqlite", "postgres"))
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database of sessions, of either kind."""
    url = None
    if request.param == "postgres":
        import psycopg
        from sqlalchemy.engine import make_url

        server = request.getfixturevalue("postgres")
        name = f"loop_{os.getpid()}_{next(COUNT)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
    store = Feedback(url=url, folder=tmp_path / "mlruns").open()
    yield store.database
    store.close()


@pytest.fixture
def loop(database: Database) -> LoopStore:
    """The loop's store in it."""
    return LoopStore(database)
