"""The answers to one request: one, or several choices and prompts together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from loraloop.serve import shapes
from loraloop.serve.answer import Answer
from loraloop.serve.shapes import Choice, Form

AT_ONCE = 8
"""Answers of one request that are generated together; a list of prompts does not fill the backend's queue."""


class Choices:
    """The answers to one request, of which the first has begun.

    Args:
        first: The answer that has begun.
        others: Begin the other answers, in the order of their places.
        form: Makes the form of an answer.
        counted: Whether a stream ends with the tokens that were used.
    """

    begun = True

    def __init__(
        self,
        first: Answer,
        others: Sequence[Callable[[], Awaitable[Answer]]],
        form: Callable[[], Form],
        counted: bool,
    ) -> None:
        self._first, self._others, self._form, self._counted = first, others, form, counted
        self._gate = asyncio.Semaphore(AT_ONCE)
        self._begun = {0: first}
        self._tasks: list[asyncio.Future[Any]] = []

    async def whole(self) -> dict[str, Any]:
        """The body of the response, once every answer is kept."""
        if not self._others:
            return shapes.whole([await self._finished(0)])
        self._tasks = [asyncio.ensure_future(self._finished(place)) for place in range(len(self._others) + 1)]
        return shapes.whole(await asyncio.gather(*self._tasks))

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """The events of a stream; those of several answers come as they are made."""
        async for event in self._merged() if self._others else self._streamed(0):
            yield event
        if self._counted:
            yield shapes.final(self._form(), [self._begun[place] for place in sorted(self._begun)])

    async def close(self, status: str = "cancelled") -> None:
        """End every answer that has begun, and keep what was generated unless it is kept already."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for answer in self._begun.values():
            await answer.close(status)

    async def _start(self, place: int) -> Answer:
        if place not in self._begun:
            self._begun[place] = await self._others[place - 1]()
        return self._begun[place]

    async def _finished(self, place: int) -> Choice:
        async with self._gate:
            answer = await self._start(place)
            logprobs = [token async for chunk in answer.chunks() for token in chunk.logprobs]
            await answer.keep()
        return Choice(place, self._form(), answer, None if answer.task.request.logprobs is None else logprobs)

    async def _merged(self) -> AsyncIterator[dict[str, Any]]:
        ready: asyncio.Queue[Any] = asyncio.Queue()

        async def stream(place: int) -> None:
            try:
                async for event in self._streamed(place):
                    ready.put_nowait(event)
            except Exception as error:
                ready.put_nowait(error)
            ready.put_nowait(None)

        places = range(len(self._others) + 1)
        self._tasks = [asyncio.ensure_future(stream(place)) for place in places]
        going = len(places)
        while going:
            event = await ready.get()
            if isinstance(event, Exception):
                raise event
            if event is None:
                going -= 1
            else:
                yield event

    async def _streamed(self, place: int) -> AsyncIterator[dict[str, Any]]:
        async with self._gate:
            answer = await self._start(place)
            form = self._form()
            choice = Choice(place, form, answer)
            with_logprobs = answer.task.request.logprobs is not None

            def event(part: Any, finish: str | None = None) -> dict[str, Any]:
                return shapes.event(choice, self._first.task, part, finish, self._counted)

            if (first := form.first()) is not None:
                yield event(first)
            async for chunk in answer.chunks():
                if (part := form.delta(chunk, with_logprobs)) is not None:
                    yield event(part)
            rest, finish = form.end(answer)
            await answer.keep()
            if rest is not None:
                yield event(rest)
            yield event(form.last(), finish)
