"""One answer, from its first chunk to its session."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from loraloop.errors import StoreError
from loraloop.monitor.metrics import PrometheusMetrics
from loraloop.records import Chunk, GenerationRequest, Session
from loraloop.serve.answer import Answer, Task
from loraloop.serve.routing import Route


class Two:
    """A backend whose answers have two chunks; it counts those that are going on."""

    def __init__(self) -> None:
        self.going = 0

    async def generate(self, ask: GenerationRequest) -> AsyncIterator[Chunk]:
        """Two tokens."""
        self.going += 1
        try:
            yield Chunk(text="a", tokens=1)
            yield Chunk(text="b", tokens=1, finish="stop")
        finally:
            self.going -= 1


class Kept:
    """Sessions in a list, or nowhere."""

    def __init__(self, full: bool = False) -> None:
        self.full, self.all = full, []

    def keep(self, served: Session) -> None:
        """Keep one."""
        if self.full:
            raise StoreError("no space left on device")
        self.all.append(served)


def answer(backend: Two, sessions: Kept) -> Answer:
    """An answer that has not begun."""
    ask = GenerationRequest(model="base", prompt="p", max_tokens=5)
    task = Task(
        id="s", link="/rate/s", route=Route("base", "base"), prompt="p", request=ask, tokens=2, retries=0,
        began=time.perf_counter(),
    )  # fmt: skip
    return Answer(task, backend, sessions, PrometheusMetrics())


def test_closing_frees_the_place_at_once():
    """An answer that nobody reads on is over when ``close`` returns, and kept with what it has."""
    backend, sessions = Two(), Kept()

    async def left() -> None:
        made = answer(backend, sessions)
        await made.begin()
        chunks = made.chunks()
        await anext(chunks)
        assert backend.going == 1
        await made.close()
        assert backend.going == 0

    asyncio.run(left())
    assert [(kept.status, kept.answer, kept.completion_tokens) for kept in sessions.all] == [("cancelled", "a", 1)]


def test_it_is_kept_once():
    """Whatever else ends an answer after it was kept makes no second session."""
    backend, sessions = Two(), Kept()

    async def whole() -> None:
        made = answer(backend, sessions)
        await made.begin()
        assert "".join([chunk.text async for chunk in made.chunks()]) == "ab"
        await made.keep()
        await made.keep()
        await made.close("error")

    asyncio.run(whole())
    assert [kept.status for kept in sessions.all] == ["ok"]


def test_closing_never_raises_for_the_store(caplog):
    """A session that cannot be kept at the end of a lost answer is logged: there is nobody left to tell."""

    async def lost() -> None:
        made = answer(Two(), Kept(full=True))
        await made.begin()
        await made.close()

    asyncio.run(lost())
    assert "no space left" in caplog.text
