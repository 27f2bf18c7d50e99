"""Claims whose connection is lost, and processes that take turns in a folder."""

from __future__ import annotations

import logging
import threading

import pytest
import sqlalchemy as sa

from loraloop.loop.lock import claim, turn
from waiting import PATIENCE


@pytest.mark.parametrize("database", ["postgres"], indirect=True)
def test_a_lost_connection_does_not_undo_what_was_done(database, caplog):
    """Where the server ended the connection that held a claim, the work under it ends well, and the log says so."""
    end = "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_database d ON d.oid = database "
    end += "WHERE locktype = 'advisory' AND d.datname = current_database()"
    with claim(database, "tick validator", 0) as free:
        with database.read() as connection:
            assert connection.execute(sa.text(end)).all() == [(True,)]
        assert free
    assert "the connection that held the lock 'loraloop tick validator' was lost" in caplog.text
    with claim(database, "tick validator", 0) as free:
        assert free


def test_who_comes_second_waits(tmp_path, caplog):
    """A second worker in a folder says that it waits, and begins when the first has left."""
    waits, steps = threading.Event(), []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            waits.set()

    def work() -> None:
        with turn(tmp_path):
            steps.append("second")

    logger, handler = logging.getLogger("loraloop.loop.lock"), Handler()
    logger.addHandler(handler)
    second = threading.Thread(target=work, daemon=True)
    with turn(tmp_path):
        second.start()
        assert waits.wait(PATIENCE)
        steps.append("first")
    second.join(PATIENCE)
    logger.removeHandler(handler)
    assert steps == ["first", "second"]
    assert f"another process works in {tmp_path}: waiting for it" in caplog.text
