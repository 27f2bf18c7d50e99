"""A value that others change, such as an alias or the rollouts in progress, as a server knows it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from loraloop.core.workers import Workers
from loraloop.errors import LoraloopError

FIRST_SECONDS = 5.0
"""Longest wait for the first answer."""
GRACE_SECONDS = 0.25
"""Longest wait for a newer value where one is known."""
T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass
class Refreshed(Generic[T]):
    """Asks for a value at most once per ``seconds``, off the event loop, however many requests need it.

    Who is asked may hang: requests go on with the last known value, and one question is under way at a time. While it
    cannot be asked for, the last known value stays too, and the log says so.

    Attributes:
        ask: Returns the value, given the known one; may block and may raise.
        known: The value until the first answer.
        seconds: How long an answer is believed.
        what: Names the value in the log, in the plural: ``the rollouts``.
        workers: Threads that ask.
        answered: Whether ``ask`` has answered since the start.
    """

    ask: Callable[[T], T]
    known: T
    seconds: float
    what: str
    workers: Workers
    answered: bool = False
    _at: float = field(default=-float("inf"))
    _began: float = 0.0
    _asking: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """The value, asked for again when its time is over."""
        now = time.monotonic()
        if self._asking is None and now - self._at > self.seconds:
            self._began, self._asking = now, asyncio.create_task(self._renew())
        if self._asking is not None:
            wait = (GRACE_SECONDS if self.answered else FIRST_SECONDS) - self.overdue
            if wait > 0:
                await asyncio.wait({self._asking}, timeout=wait)
        return self.known

    @property
    def overdue(self) -> float:
        """For how many seconds the question has been under way; 0 where none is."""
        return time.monotonic() - self._began if self._asking is not None else 0.0

    async def _renew(self) -> None:
        try:
            self.known = await self.workers.run(self.ask, self.known)
            self.answered = True
        except Exception as error:  # requests are answered whatever went wrong
            unexpected = not isinstance(error, LoraloopError)
            logger.error("%s stay as they were known: %s", self.what, error, exc_info=unexpected)
        finally:
            self._at, self._asking = time.monotonic(), None
