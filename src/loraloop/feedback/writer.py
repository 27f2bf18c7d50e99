"""The one thread of a process that writes to the database: what waits meanwhile is committed together."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from sqlalchemy.engine import Connection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from loraloop.errors import StoreError
from loraloop.feedback.database import Database

WAITING = 256
"""Writes that wait; one more is refused at once."""
PATIENCE = 3
"""Times ``busy_seconds`` after which a caller no longer waits for a database that neither takes nor refuses a write."""
T = TypeVar("T")


@dataclass
class _Job(Generic[T]):
    work: Callable[[Connection], T]
    future: Future[T] = field(default_factory=Future)
    value: T | None = None
    error: Exception | None = None

    def end(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.value)  # type: ignore[arg-type]


class Writer:
    """Writes one after the other, many in one transaction; a write is acknowledged after its commit.

    A write that violates a constraint is undone alone. When the database is found locked, full or away, everything
    that waits is refused with the one that found out: a caller waits ``busy_seconds``, not its turn times that.

    Args:
        database: Where.
        waiting: Writes that may wait.
    """

    def __init__(self, database: Database, waiting: int = WAITING) -> None:
        self._database, self._waiting = database, waiting
        self._patience = PATIENCE * database.busy_seconds
        self._queue: deque[_Job[Any]] = deque()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False

    def write(self, work: Callable[[Connection], T]) -> T:
        """What ``work`` returns, after its commit.

        Raises:
            StoreError: The queue is full, or the database is locked, full, away or hangs.
            IntegrityError: A row violates a constraint.
        """
        future = self._submit(work)
        with self._database.explained():
            try:
                return future.result(self._patience)
            except TimeoutError:
                raise self._hangs() from None

    async def written(self, work: Callable[[Connection], T]) -> T:
        """As :meth:`write`, without a thread that waits; the write is done also where the caller is cancelled."""
        future = asyncio.wrap_future(self._submit(work))
        with self._database.explained():
            try:
                async with asyncio.timeout(self._patience):
                    return await asyncio.shield(future)
            except TimeoutError:
                raise self._hangs() from None

    def close(self) -> None:
        """Write what waits and end the thread; a later write starts another."""
        with self._changed:
            self._closing, thread = True, self._thread
            self._changed.notify()
        if thread is not None:
            thread.join(self._patience)

    def _submit(self, work: Callable[[Connection], T]) -> Future[T]:
        job = _Job(work)
        with self._changed:
            if len(self._queue) >= self._waiting:
                raise StoreError(
                    f"{self._database.name} is too slow: {len(self._queue)} writes wait; see what holds it, or repeat"
                )
            self._queue.append(job)
            if self._thread is None:
                self._closing = False
                self._thread = threading.Thread(target=self._run, name="sessions", daemon=True)
                self._thread.start()
            self._changed.notify()
        return job.future

    def _run(self) -> None:
        while self._wait():
            jobs: list[_Job[Any]] = []
            try:
                with self._database.write() as connection:
                    self._take(jobs)
                    for job in jobs:
                        _try(job, connection)
            except Exception as error:  # the thread goes on, whatever it was
                self._take(jobs)
                for job in jobs:
                    job.error = error
            for job in jobs:
                job.end()

    def _wait(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closing)
            if not self._queue:
                self._thread = None
            return bool(self._queue)

    def _take(self, jobs: list[_Job[Any]]) -> None:
        with self._changed:
            jobs += self._queue
            self._queue.clear()

    def _hangs(self) -> StoreError:
        return StoreError(
            f"{self._database.name} does not answer: {self._patience:g} s have passed; see what holds it, or start it "
            "again"
        )


def _try(job: _Job[Any], connection: Connection) -> None:
    """Do one write of a transaction; what is wrong with its rows alone undoes it alone."""
    savepoint = connection.begin_nested()
    try:
        job.value = job.work(connection)
    except Exception as error:
        if isinstance(error, DBAPIError) and not isinstance(error, (IntegrityError, DataError)):
            raise
        savepoint.rollback()
        job.error = error
    else:
        savepoint.commit()
