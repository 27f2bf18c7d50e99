"""A place for traces that a process of its own sends to: this one's interpreter lock is what answers would wait for."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import TYPE_CHECKING

from loraloop.errors import TrackingError

if TYPE_CHECKING:
    from loraloop.records import Session
    from loraloop.tracing.mlflow import MlflowTraces
    from loraloop.tracing.otlp import OtlpReceiver
    from loraloop.tracing.queue import Corrected, Given

NICENESS = 10
"""The process yields to the one that generates, where both want a core."""


class Apart:
    """Sends to ``place`` from a process that begins with the first answer and ends with this one, however it ends.

    Args:
        place: This process itself does not reach it.
    """

    def __init__(self, place: MlflowTraces | OtlpReceiver) -> None:
        self.name, self.takes_ratings = place.name, place.takes_ratings
        self._place = place
        self._child: tuple[BaseProcess, Connection] | None = None

    def send(self, sessions: Sequence[Session]) -> None:
        """Send answers.

        Raises:
            TrackingError: The place did not take them, in its words, or the process was killed: send them again.
        """
        self._ask("send", list(sessions))

    def tell(self, judged: Given | Corrected) -> None:
        """Send a rating or a correction; errors are those of :meth:`send`."""
        self._ask("tell", judged)

    def close(self) -> None:
        """End the process, also amid what it does."""
        if self._child is not None:
            process, connection = self._child
            connection.close()
            process.terminate()
            process.join()

    def _ask(self, method: str, given: object) -> None:
        if self._child is None:
            self._child = self._started()
        try:
            self._child[1].send((method, given))
            error = self._child[1].recv()
        except (EOFError, OSError) as gone:
            self._child = None
            raise TrackingError(f"the process that sends to {self.name} was ended") from gone
        if error is not None:
            raise TrackingError(error)

    def _started(self) -> tuple[BaseProcess, Connection]:
        spawn = multiprocessing.get_context("spawn")
        mine, theirs = spawn.Pipe()
        process = spawn.Process(target=_send_all, args=(theirs, self._place), name=f"traces {self.name}", daemon=True)
        process.start()
        theirs.close()  # so that the child's end is the only one, and its end is seen here
        return process, mine


def _send_all(connection: Connection, place: MlflowTraces | OtlpReceiver) -> None:
    """Do what is asked until nobody can ask any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the server, which ends this process
    os.nice(NICENESS)
    while True:
        try:
            method, given = connection.recv()
        except EOFError:
            return
        try:
            getattr(place, method)(given)
        except Exception as error:  # told as text: not every error can be rebuilt elsewhere
            connection.send(str(error) or type(error).__name__)
        else:
            connection.send(None)
