"""Waiting for a service that was there, and is away for a moment."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

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
