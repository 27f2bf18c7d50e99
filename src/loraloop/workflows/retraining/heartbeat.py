"""A sign of life from a long step: a training may take longer than the time after which a tick is overdue."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from loraloop.core.repeating import repeating
from loraloop.errors import LoraloopError

_log = logging.getLogger(__name__)

EVERY = 600.0
"""Seconds."""


def heartbeat(beat: Callable[[], None], every: float = EVERY) -> AbstractContextManager[None]:
    """Call ``beat`` on a thread, every so many seconds, as long as the block runs and the process lives."""

    def once() -> None:
        try:
            beat()
        except LoraloopError as error:
            _log.warning("the tick's time cannot be noted: %s", error)

    return repeating(once, every, "heartbeat")
