"""Sessions kept a second: eight clients at once, each of which waits until its session is on disk.

    python benchmarks/sessions.py [--seconds 10] [--clients 8] [--url postgresql://...] [--out benchmarks/results/...]

`plain` is a commit a session, one after the other, as sqlite3 alone does it. SQLite's file lies in --folder, so that
the figure is that of its disk.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
import threading
import time
import uuid
from pathlib import Path

from machine import describe

from loraloop.feedback.settings import Feedback
from loraloop.feedback.store import Store
from loraloop.records import Session

PROMPT = "Count the heads and tails.\nHTHHTTHHHTHHTTHHHTHHTTHHHTHHTTHH\n> "


def session() -> Session:
    """An answer as the tiny base gives it."""
    return Session(
        id=uuid.uuid4().hex,
        time="2026-11-29T12:00:00.000+00:00",
        asked="loraloop@champion",
        answered="loraloop@1",
        role=None,
        prompt=PROMPT,
        answer="20 heads, 12 tails",
        status="ok",
        duration=0.2,
        first_token=0.1,
        prompt_tokens=64,
        completion_tokens=18,
    )


def kept(store: Store, clients: int, seconds: float) -> float:
    """Sessions a second."""
    end, counts = time.perf_counter() + seconds, [0] * clients

    def client(number: int) -> None:
        while time.perf_counter() < end:
            store.keep(session())
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.latest(10**9)) == sum(counts)
    return sum(counts) / seconds


def plain(folder: Path, seconds: float) -> float:
    """Commits a second of one row of that size, one after the other."""
    with sqlite3.connect(folder / "plain.db", isolation_level=None) as database:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (text TEXT)"):
            database.execute(statement)
        end, count = time.perf_counter() + seconds, 0
        while time.perf_counter() < end:
            database.execute("INSERT INTO t VALUES (?)", (PROMPT * 4,))
            count += 1
    return count / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--url")
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as scratch:
        store = Feedback(url=given.url, folder=Path(scratch)).open()
        report = {
            **describe("sqlalchemy"),
            "database": store.database.url.get_backend_name(),
            "clients": given.clients,
            "seconds": given.seconds,
            "kept_per_second": round(kept(store, given.clients, given.seconds)),
            "kept_per_second_one_client": round(kept_by_one(given, Path(scratch))),
            "plain_commits_per_second": round(plain(Path(scratch), given.seconds)),
        }
        store.close()
    print(json.dumps(report, indent=2))
    if given.out:
        given.out.write_text(json.dumps(report, indent=2) + "\n")


def kept_by_one(given: argparse.Namespace, folder: Path) -> float:
    """The same with one client, in a database of its own."""
    store = Feedback(folder=folder / "one").open()
    try:
        return kept(store, 1, given.seconds)
    finally:
        store.close()


if __name__ == "__main__":
    main()
