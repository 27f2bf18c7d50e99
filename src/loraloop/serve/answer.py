"""One answer from its first piece to the session that is kept of it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from loraloop.errors import StoreError
from loraloop.records import Chunk, GenerationRequest, Session
from loraloop.serve.routing import Route

if TYPE_CHECKING:
    from loraloop.protocols import Backend, Metrics, Sessions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What a client wants answered.

    Attributes:
        id: Of the session.
        link: Where a person rates the answer.
        prompt: As the client wrote it, images and recordings as the text that was read.
        tokens: Of the rendered prompt.
        began: Monotonic time at which the request came.
        conversation: What the client says that it is part of.
        client: Who asks.
    """

    id: str
    link: str
    route: Route
    prompt: Any
    ask: GenerationRequest
    tokens: int
    retries: int
    began: float
    conversation: str | None = None
    client: str | None = None
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


class Answer:
    """An answer in the making. Whatever becomes of it, :meth:`keep` or :meth:`close` makes a session of it, once.

    Args:
        task: What is answered.
        backend: What answers.
        sessions: Where it is kept.
        metrics: Where it is counted.
    """

    def __init__(self, task: Task, backend: Backend, sessions: Sessions, metrics: Metrics) -> None:
        self.task = task
        self.text = ""
        self.tokens = 0
        self.finish: str | None = None
        self.begun = False
        self._sessions, self._metrics = sessions, metrics
        self._pieces = backend.generate(task.ask)
        self._first: Chunk | None = None
        self._first_at: float | None = None
        self._kept = False

    async def begin(self) -> None:
        """Wait for the first piece: until then an error can still be the whole answer.

        Raises:
            BusyError: The backend has no place.
            ModelError: The model cannot answer.
        """
        self._first = await anext(self._pieces, None)
        self.begun = True

    async def pieces(self) -> AsyncIterator[Chunk]:
        """Every piece, as it comes."""
        if self._first is not None:
            piece, self._first = self._first, None
            yield self._take(piece)
        async for piece in self._pieces:
            yield self._take(piece)

    async def keep(self, status: str = "ok") -> None:
        """End the answer and keep it; it is on disk when this returns.

        Raises:
            StoreError: It could not be kept.
        """
        if self._kept:
            return
        self._kept = True
        session = self._session(self._late() if status == "ok" else status)
        await asyncio.to_thread(self._sessions.keep, session)
        self._metrics.served(session)

    async def close(self, status: str = "cancelled") -> None:
        """Give the backend's place back, and keep what there is if that was not done."""
        leave = getattr(self._pieces, "aclose", None)
        if leave is not None:
            await leave()
        try:
            await self.keep(status)
        except StoreError as error:
            logger.error("the session %s (%s) was not kept: %s", self.task.id, status, error)

    def _take(self, piece: Chunk) -> Chunk:
        if self._first_at is None and piece.tokens:
            self._first_at = time.perf_counter()
        self.text += piece.text
        self.tokens += piece.tokens
        self.finish = piece.finish or self.finish
        return piece

    def _late(self) -> str:
        """An answer that ends for its length without having it ended at its deadline."""
        return "timeout" if self.finish == "length" and self.tokens < self.task.ask.max_tokens else "ok"

    def _session(self, status: str) -> Session:
        task, now = self.task, time.perf_counter()
        return Session(
            id=task.id,
            time=task.created.isoformat(timespec="milliseconds"),
            asked=task.route.asked,
            answered=task.route.answered,
            role=task.route.role,
            prompt=task.prompt,
            answer=self.text,
            status=status,
            duration=now - task.began,
            first_token=self._first_at - task.began if self._first_at is not None else None,
            prompt_tokens=task.tokens,
            completion_tokens=self.tokens,
            retries=task.retries,
            conversation=task.conversation,
            client=task.client,
            rollout=task.route.rollout,
        )
