"""Stores in a SQLite file and in a real PostgreSQL, and answers to keep in them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loraloop.feedback.settings import Feedback
from loraloop.feedback.store import Store
from loraloop.records import Session

KINDS = ("sqlite", "postgres")
COUNT = itertools.count()


def served(id: str = "s1", **changes: Any) -> Session:
    """An answer that came after a second."""
    values: dict[str, Any] = {
        "id": id,
        "time": "2026-03-02T11:00:00.000+00:00",
        "asked": "agent:validator",
        "answered": "ocr@7",
        "role": "validator",
        "prompt": [{"role": "system", "content": "Read the dial."}, {"role": "user", "content": "HHTT"}],
        "answer": "2 heads, 2 tails",
        "status": "ok",
        "duration": 1.0,
        "first_token": 0.25,
        "prompt_tokens": 12,
        "completion_tokens": 16,
    }
    return Session(**values | changes)


@pytest.fixture
def fresh(postgres: str) -> str:
    """URL of an empty PostgreSQL database."""
    import psycopg
    from sqlalchemy.engine import make_url

    name = f"sessions_{os.getpid()}_{next(COUNT)}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return make_url(postgres).set(database=name).render_as_string(hide_password=False)


@pytest.fixture(params=KINDS)
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Feedback:
    """The part, on either database."""
    url = request.getfixturevalue("fresh") if request.param == "postgres" else None
    return Feedback(url=url, folder=tmp_path / "mlruns")


@pytest.fixture
def store(settings: Feedback) -> Iterator[Store]:
    """An empty store on either database."""
    made = settings.open()
    yield made
    made.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Store]:
    """An empty store in a file, where the database does not matter."""
    made = Feedback(folder=tmp_path / "mlruns").open()
    yield made
    made.close()


@pytest.fixture
def make() -> Callable[..., Session]:
    """A function that makes an answer."""
    return served
