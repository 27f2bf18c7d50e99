"""A study in a PostgreSQL database whose connections break, and which takes none for a while."""

from __future__ import annotations

import os
import threading

import psycopg
import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from loraloop.errors import ConfigError, SweepError
from loraloop.sweep import lasting, storage
from loraloop.sweep.opening import open_study
from loraloop.sweep.space import Numbers

SPACE = {"x": Numbers(-4.0, 4.0)}


class Database:
    """A database of a real server, which can be taken away."""

    def __init__(self, server):
        self.server, self.name = server, f"lasting_{os.getpid()}"
        self._tell(f"CREATE DATABASE {self.name}")
        self.url = make_url(server).set(database=self.name).render_as_string(hide_password=False)

    def leave(self):
        """Break its connections and refuse new ones."""
        self._tell(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false")
        self._tell("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", self.name)

    def come_back(self):
        """Take connections again."""
        self._tell(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")

    def _tell(self, words, *values):
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(words, values)


@pytest.fixture(scope="module")
def database(postgres):
    """A database of this file's own."""
    return Database(postgres)


@pytest.fixture
def opened(database, bench, request):
    """A sweep at work on a study of that database."""
    sweep = bench.settings(storage=database.url, study_name=request.node.name)
    with open_study(sweep, "unnamed", SPACE, {}) as session:
        yield session


def test_what_a_lost_database_broke_off_is_done_again(database, opened, caplog):
    """Reports, ends and proposals wait for a database that comes back, once each, and the sweep still has its claim."""
    first, second = opened.ask(2)
    database.leave()
    threading.Timer(1.0, database.come_back).start()
    opened.identity(first).report(1, 0.5)
    database.leave()
    database.come_back()  # connections of the pool are lost, and nobody has noticed yet
    opened.tell(first, 0.25)
    opened.tell(second, 0.5)
    opened.ask(1)
    trials = opened.study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE", "RUNNING"]
    assert trials[0].intermediate_values == {1: 0.5}
    assert "is waited for" in caplog.text
    assert "answers again" in caplog.text
    with (
        pytest.raises(ConfigError, match="another sweep is at work"),
        storage.claim(opened.url, opened.study.study_name),
    ):
        pass


@pytest.mark.parametrize("queued", [True, False])
def test_a_commit_whose_answer_was_lost_is_not_repeated(opened, monkeypatch, queued):
    """A trial that was made, and an end that was kept, before the connection broke are found and not made twice."""
    calls = []

    def broken(method):
        def call(*given, **named):
            calls.append(method(*given, **named))
            if len(calls) in (1, 2):
                raise OperationalError("COMMIT", {}, Exception("server closed the connection unexpectedly"))
            return calls[-1]

        return call

    backend = storage.connect(opened.url)
    monkeypatch.setattr(lasting, "FIRST_PAUSE", 0.0)
    monkeypatch.setitem(backend.__dict__, "_create_new_trial", broken(backend._create_new_trial))
    monkeypatch.setitem(backend.__dict__, "set_trial_state_values", broken(backend.set_trial_state_values))
    if queued:
        opened.study.enqueue_trial({"x": 1.0})
    (proposal,) = opened.ask(1)
    opened.tell(proposal, 0.5)
    (only,) = opened.study.get_trials()
    assert (only.number, only.state.name, only.values) == (proposal.number, "COMPLETE", [0.5])


def test_a_database_that_stays_away_ends_the_call(database, opened, monkeypatch):
    """After the longest absence a call ends in one sentence; once the database is back, the next one goes through."""
    monkeypatch.setattr(lasting, "OUTAGE_SECONDS", 0.5)
    database.leave()
    with pytest.raises(SweepError, match="cannot be used"), storage.explained(opened.url, SweepError):
        opened.ask(1)
    database.come_back()
    assert len(opened.ask(1)) == 1
