"""The rollouts in progress, as a server knows them."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from loraloop.errors import LoraloopError
from loraloop.records import Rollout

GenerationRequest = Callable[[], Sequence[Rollout]]
logger = logging.getLogger(__name__)


@dataclass
class Rollouts:
    """Asks which rollouts there are, at most once per ``seconds``, off the event loop.

    While they cannot be asked for, the last known ones go on: a conversation keeps its version.

    Attributes:
        ask: Tells the rollouts in progress; may block. Without it there are none.
        seconds: How long an answer is believed.
    """

    ask: GenerationRequest | None = None
    seconds: float = 1.0
    _known: Sequence[Rollout] = ()
    _at: float = field(default=-float("inf"))
    _asking: asyncio.Task[None] | None = None

    async def of(self, model: str, stable: int) -> Rollout | None:
        """The rollout whose stable version is this one of ``model``, if there is one."""
        if self.ask is not None and time.monotonic() - self._at > self.seconds:
            self._asking = self._asking or asyncio.create_task(self._renew(self.ask))
            await asyncio.shield(self._asking)
        return next((each for each in self._known if (each.model, each.stable) == (model, stable)), None)

    async def _renew(self, ask: GenerationRequest) -> None:
        try:
            self._known = tuple(await asyncio.to_thread(ask))
        except Exception as error:  # whatever is wrong with a rollout, answers go on
            logger.error(
                "the rollouts stay as they were known: %s", error, exc_info=not isinstance(error, LoraloopError)
            )
        finally:
            self._at, self._asking = time.monotonic(), None
