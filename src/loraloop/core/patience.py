"""Waiting for a service: for one that is away for a moment, and for the first answer of one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

from loraloop.core.console import duration

AWAY_SECONDS = 300.0
"""How long a trial waits for what its sweep had reached: a restart or failover takes seconds to minutes."""
PAUSE_SECONDS = 5.0

T = TypeVar("T")
_log = logging.getLogger(__name__)


def patiently(call: Callable[[], T], error: type[Exception]) -> T:
    """What ``call`` returns, which is made again for :data:`AWAY_SECONDS` where it raises an ``error``."""
    end, told = time.monotonic() + AWAY_SECONDS, False
    while True:
        try:
            return call()
        except error as away:
            if time.monotonic() > end:
                raise
            if not told:
                _log.warning("This is tried again for %s at most: %s", duration(AWAY_SECONDS), away)
            told = True
        time.sleep(PAUSE_SECONDS)


def within(seconds: float, call: Callable[[], T]) -> T:
    """What ``call`` returns or raises, in a thread, which is left behind where it takes longer than ``seconds``.

    Raises:
        TimeoutError: It did.
    """
    answers: SimpleQueue[tuple[T | None, Exception | None]] = SimpleQueue()

    def answer() -> None:
        try:
            answers.put((call(), None))
        except Exception as error:
            answers.put((None, error))

    threading.Thread(target=answer, daemon=True, name="within").start()
    try:
        returned, error = answers.get(timeout=seconds)
    except Empty:
        raise TimeoutError from None
    if error is not None:
        raise error
    return cast("T", returned)
