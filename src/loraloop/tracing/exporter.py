"""Sending what waits, beside the server: nothing is lost while the other side is away."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import TYPE_CHECKING

from loraloop.core.passwords import mask
from loraloop.tracing.apart import Apart
from loraloop.tracing.queue import Corrected, Given, Queue

if TYPE_CHECKING:
    from loraloop.protocols import Database
    from loraloop.tracing.mlflow import MlflowTraces
    from loraloop.tracing.otlp import OtlpReceiver
    from loraloop.tracing.settings import Tracing

BATCH = 20
"""Answers that are sent at once, at most."""
LONGEST_SECONDS = 60.0
"""Longest pause after a failure."""
PATIENCE = 5.0
"""Seconds that the end of the server waits for; what was not sent by then is sent after the next start."""
logger = logging.getLogger(__name__)


class Exporter:
    """Sends sessions, ratings and corrections of a queue to one place, and marks what was sent.

    After a failure the answers stay in the queue, the next attempt is a smaller one, and those that failed go behind
    the others: one that is never taken holds up no other.

    Args:
        queue: Of the place.
        place: Where they go.
    """

    def __init__(self, queue: Queue, place: MlflowTraces | OtlpReceiver | Apart) -> None:
        self._queue, self._place, self._size = queue, place, BATCH

    def step(self) -> int:
        """Send some of what waits; how many things were sent.

        Raises:
            Exception: The place's or the database's; nothing is lost.
        """
        sessions = self._queue.take(self._size)
        if sessions:
            try:
                self._place.send(sessions)
            except Exception:
                self._size = max(1, self._size // 2)
                self._queue.failed(sessions)
                raise
            self._size = min(BATCH, 2 * self._size)
            self._queue.sent(sessions)
        return len(sessions) + self._judged()

    def _judged(self) -> int:
        if self._place.takes_ratings is False:
            return 0
        found: list[Given | Corrected] = [*self._queue.ratings(BATCH), *self._queue.corrections(BATCH)]
        for each in found:
            self._place.tell(each)
            self._queue.told(each)
        return len(found)


class Worker:
    """The thread of one exporter.

    Args:
        exporter: Does the work.
        queue: Is counted for the log.
        seconds: Between two looks; after a failure more and more, up to :data:`LONGEST_SECONDS`.
    """

    def __init__(self, exporter: Exporter, queue: Queue, seconds: float) -> None:
        self._exporter, self._queue, self._seconds = exporter, queue, seconds
        self._stopping, self._failing = threading.Event(), False
        self._thread = threading.Thread(target=self._run, name=f"traces {queue.destination}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Send what waits, if that is quick, and end the thread."""
        self._stopping.set()
        self._thread.join(PATIENCE)

    def _run(self) -> None:
        pause = self._seconds
        while not self._stopping.wait(pause):
            pause = self._seconds if self._all() else min(max(LONGEST_SECONDS, self._seconds), 2 * pause)
        if not self._failing:
            self._all()

    def _all(self) -> bool:
        """Send until nothing waits; whether that went well."""
        try:
            began = time.perf_counter()
            while self._exporter.step():
                # half of the time is the server's: its answers are generated on the same cores
                self._stopping.wait(time.perf_counter() - began)
                began = time.perf_counter()
        except Exception as error:  # the thread goes on, whatever it was
            if not self._failing:
                name, count = self._queue.destination, self._queue_length()
                logger.warning("traces: %s answers wait for %s and are sent later: %s", count, name, _first(error))
            self._failing = True
            return False
        if self._failing:
            logger.warning("traces: everything that waited for %s was sent", self._queue.destination)
        self._failing = False
        return True

    def _queue_length(self) -> str:
        try:
            return str(self._queue.waiting())
        except Exception:  # the database itself may be what failed
            return "some"


def _first(error: Exception) -> str:
    return mask(str(error).partition("\n")[0]) or type(error).__name__


def exporters(tracing: Tracing, database: Database) -> list[tuple[Exporter, Queue]]:
    """An exporter for each place, with its queue."""
    queued = [(place, Queue(database, place.name)) for place in tracing.places()]
    return [(Exporter(queue, place), queue) for place, queue in queued]


@contextmanager
def exporting(tracing: Tracing, database: Database) -> Iterator[None]:
    """Export within the block, beside what it does, from a process of its own for each place."""
    with ExitStack() as stack:
        for place in tracing.places():
            queue, apart = Queue(database, place.name), stack.enter_context(closing(Apart(place)))
            stack.enter_context(closing(Worker(Exporter(queue, apart), queue, tracing.seconds)))
        yield
