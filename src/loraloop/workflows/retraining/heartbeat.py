"""A sign of life from a long step: a training may take longer than the time after which a tick is overdue."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from loraloop.errors import LoraloopError

_log = logging.getLogger(__name__)

EVERY = 600.0
"""Seconds."""


@contextmanager
def heartbeat(beat: Callable[[], None], every: float = EVERY) -> Iterator[None]:
    """Call ``beat`` on a thread, every so many seconds, as long as the block runs and the process lives."""
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(every):
            try:
                beat()
            except LoraloopError as error:
                _log.warning("the tick's time cannot be noted: %s", error)

    thread = threading.Thread(target=run, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
