"""A value that others change, such as the rollouts in progress, as a server knows it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from loraloop.errors import LoraloopError

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass
class Refreshed(Generic[T]):
    """Asks for a value at most once per ``seconds``, off the event loop, however many requests need it.

    While it cannot be asked for, the last known value stays, and the log says so.

    Attributes:
        ask: Returns the value; may block and may raise.
        known: The value until the first answer.
        seconds: How long an answer is believed.
        what: Names the value in the log, in the plural: ``the rollouts``.
    """

    ask: Callable[[], T]
    known: T
    seconds: float
    what: str
    _at: float = field(default=-float("inf"))
    _asking: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """The value, asked for again when its time is over."""
        if time.monotonic() - self._at > self.seconds:
            self._asking = self._asking or asyncio.create_task(self._renew())
            await asyncio.shield(self._asking)
        return self.known

    async def _renew(self) -> None:
        try:
            self.known = await asyncio.to_thread(lambda: self.ask())
        except Exception as error:  # requests are answered whatever went wrong
            unexpected = not isinstance(error, LoraloopError)
            logger.error("%s stay as they were known: %s", self.what, error, exc_info=unexpected)
        finally:
            self._at, self._asking = time.monotonic(), None
