"""The thread that writes: groups, refusals, and a database that is locked or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from loraloop.errors import StoreError
from loraloop.feedback.settings import Feedback
from loraloop.feedback.store import Store
from loraloop.feedback.writer import Writer
from waiting import PATIENCE, until


@contextlib.contextmanager
def held(store: Store) -> Iterator[sqlite3.Connection]:
    """Another program's write lock."""
    with contextlib.closing(sqlite3.connect(str(store.database.url.database), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other
        if other.in_transaction:
            other.execute("ROLLBACK")


def waiting(store: Store, count: int) -> bool:
    """Whether so many writes wait."""
    return len(store._writer._queue) == count


def counted(store: Store, statement: str) -> list[str]:
    """Every time that a statement is tried from now on."""
    tried: list[str] = []
    sa.event.listen(
        store.database.engine,
        "before_cursor_execute",
        lambda *told: tried.append(told[2]) if told[2].startswith(statement) else None,
    )
    return tried


def test_what_waits_is_committed_together(tmp_path, make):
    """Writes that wait for a lock share one transaction, and one that violates a constraint is undone alone."""
    store = Feedback(folder=tmp_path, busy_seconds=60).open()
    store.keep(make("s0"))
    begins = counted(store, "BEGIN")
    with ThreadPoolExecutor(8) as pool, held(store) as other:
        keeping = [pool.submit(store.keep, make(f"s{number}")) for number in range(8)]
        until(lambda: waiting(store, 8), "eight writes wait")
        other.execute("ROLLBACK")
        refused = [type(each.exception(PATIENCE)) for each in keeping]
    assert refused == [StoreError] + [type(None)] * 7
    assert [each.id for each in store.all()] == [f"s{number}" for number in range(8)]
    assert len(begins) == 1
    store.close()


def test_a_lock_is_waited_for_once(tmp_path, make):
    """Of eight writes under a lock that does not fall, one waits for it and all are refused with it."""
    store = Feedback(folder=tmp_path, busy_seconds=0.5).open()
    begins = counted(store, "BEGIN")
    with ThreadPoolExecutor(8) as pool, held(store):
        faults = [str(each.exception(PATIENCE)) for each in [pool.submit(store.keep, make(f"s{n}")) for n in range(8)]]
    assert all("locked; another program holds it" in fault for fault in faults)
    assert len(begins) < 8
    store.close()


def test_a_full_queue_refuses_at_once(file, make):
    """One write more than may wait is refused while the others still wait, and they are kept."""
    writer = Writer(file.database, waiting=1)
    with ThreadPoolExecutor(1) as pool, held(file) as other:
        first = pool.submit(writer.write, lambda connection: connection.exec_driver_sql("SELECT 7").scalar())
        until(lambda: len(writer._queue) == 1, "a write waits")
        with pytest.raises(StoreError, match="1 writes wait"):
            writer.write(lambda connection: None)
        other.execute("ROLLBACK")
        assert first.result(PATIENCE) == 7
    writer.close()


def test_a_write_outlives_its_caller(file, make):
    """A session whose request is cancelled while it is written is kept all the same."""

    async def leave() -> None:
        keeping = asyncio.create_task(file.keep_served(make()))
        await asyncio.sleep(0)
        keeping.cancel()

    with held(file):
        asyncio.run(leave())
    file.close()
    assert [each.id for each in file.all()] == ["s1"]


@contextlib.contextmanager
def relayed(path: str) -> Iterator[tuple[int, threading.Event]]:
    """A port that leads to a server's socket while the event is set, and keeps silent while it is not."""
    flowing, ends = threading.Event(), []
    flowing.set()

    def pump(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                flowing.wait()
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(path)
                ends.extend((client, server))
                for pair in ((client, server), (server, client)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        try:
            yield listening.getsockname()[1], flowing
        finally:
            flowing.set()
            for each in ends:
                each.close()


@pytest.mark.fault("database hung", "serve", "requests are refused within 3 x feedback.busy_seconds")
def test_a_database_that_hangs(fresh, tmp_path, make):
    """A PostgreSQL that neither answers nor refuses is given up, and is used again when it goes on."""
    direct = make_url(fresh)
    folder = Path(str(direct.query["host"]))
    (own,) = (each for each in folder.glob(".s.PGSQL.*") if not each.name.endswith(".lock"))
    with relayed(str(own)) as (port, flowing):
        url = direct.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
        store = Feedback(url=url, folder=tmp_path, busy_seconds=0.5).open()
        store.keep(make("s1"))
        flowing.clear()
        with pytest.raises(StoreError, match="does not answer"):
            store.keep(make("s2"))
        flowing.set()
        store.keep(make("s3"))
        assert {"s1", "s3"} <= {each.id for each in store.all()}
        store.close()


def test_connections_that_end_with_a_dead_peer(fresh, tmp_path):
    """PostgreSQL ends a statement that writes within seconds, and the socket is told when the other side is gone."""
    store = Feedback(url=fresh, folder=tmp_path, busy_seconds=3).open()
    with store.database.write() as connection:
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "6s"
        given = connection.connection.dbapi_connection.info.get_parameters()
    with store.database.read() as connection:
        assert connection.scalar(sa.text("SHOW statement_timeout")) == "1min"
    assert (given["tcp_user_timeout"], given["keepalives_idle"]) == ("3000", "2")
    store.close()
