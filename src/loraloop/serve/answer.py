"""An answer, from its first chunk to the session that is kept of it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from loraloop.core.tool_calls import without_later
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
        follows: The session whose answer it goes on from, where the client says so.
        client: Who asks.
        key: Name of the API key that it came with.
        tools: That the model may call.
        parallel: Whether it may call several at once.
        counts_prompt: Whether the prompt's tokens are counted with this answer: with one of its choices.
    """

    id: str
    link: str
    route: Route
    prompt: Any
    request: GenerationRequest
    tokens: int
    retries: int
    began: float
    conversation: str | None = None
    follows: str | None = None
    client: str | None = None
    key: str | None = None
    tools: list[dict[str, Any]] = field(default_factory=list)
    parallel: bool = True
    counts_prompt: bool = True
    created: datetime = field(default_factory=lambda: datetime.now(UTC))


class Answer:
    """An answer while it is generated. :meth:`keep` or :meth:`close` makes one session of it, however it ends.

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
        self.reused = 0
        self.finish: str | None = None
        self.begun = False
        self._sessions, self._metrics = sessions, metrics
        self._chunks = backend.generate(task.request)
        self._first: Chunk | None = None
        self._first_at: float | None = None
        self._ended_at: float | None = None
        self._kept = False

    async def begin(self) -> None:
        """Wait for the first chunk: until then the response can still be an error.

        Raises:
            BusyError: The backend has no place.
            ModelError: The model cannot answer.
        """
        self._first = await anext(self._chunks, None)
        self.begun = True

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Every chunk, as it comes."""
        if self._first is not None:
            chunk, self._first = self._first, None
            yield self._take(chunk)
        async for chunk in self._chunks:
            yield self._take(chunk)
        self._ended_at = time.perf_counter()

    async def keep(self, status: str = "ok") -> None:
        """End the answer and keep it; it is on disk when this returns.

        Raises:
            StoreError: It could not be kept.
        """
        if self._kept:
            return
        self._kept = True
        session = self._session(self._status() if status == "ok" else status)
        await self._sessions.keep_served(session)
        self._metrics.served(session)

    async def close(self, status: str = "cancelled") -> None:
        """Free the place in the backend, and keep what was generated unless it is kept already."""
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()
        try:
            await self.keep(status)
        except StoreError as error:
            logger.error("the session %s (%s) was not kept: %s", self.task.id, status, error)

    def _take(self, chunk: Chunk) -> Chunk:
        if self._first_at is None and chunk.tokens:
            self._first_at = time.perf_counter()
        if not chunk.echo:
            self.text += chunk.text
        self.tokens += chunk.tokens
        self.reused += chunk.reused
        self.finish = chunk.finish or self.finish
        return chunk

    def _status(self) -> str:
        """``timeout`` for an answer that ended at its deadline: with ``length`` before it had its tokens."""
        return "timeout" if self.finish == "length" and self.tokens < self.task.request.max_tokens else "ok"

    def _session(self, status: str) -> Session:
        task, ended = self.task, self._ended_at or time.perf_counter()
        return Session(
            id=task.id,
            time=task.created.isoformat(timespec="milliseconds"),
            asked=task.route.asked,
            answered=task.route.answered,
            role=task.route.role,
            prompt=task.prompt,
            tools=task.tools or None,
            answer=self.text if task.parallel or not task.tools else without_later(self.text),
            status=status,
            duration=ended - task.began,
            first_token=self._first_at - task.began if self._first_at is not None else None,
            prompt_tokens=task.tokens,
            completion_tokens=self.tokens,
            retries=task.retries,
            conversation=task.conversation,
            follows=task.follows,
            client=task.client,
            asked_key=task.key,
            rollout=task.route.rollout,
        )
