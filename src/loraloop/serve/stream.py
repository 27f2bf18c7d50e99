"""Responses that stop their work as soon as the client has hung up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeVar

import orjson
from starlette.responses import Response

T = TypeVar("T")
Receive = Callable[[], Awaitable[Any]]
GONE = 499
"""nginx's status for a client that closed the connection; it is counted, nobody receives it."""


class GoneError(Exception):
    """The client hung up."""


async def unless_gone(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """Do ``work``; cancel it and wait for its end when the client hangs up.

    Raises:
        GoneError: The client hung up first.
    """
    working, watching = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise GoneError
        return working.result()
    finally:
        watching.cancel()
        working.cancel()
        await asyncio.gather(working, watching, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """Server-sent events.

    Args:
        events: What is sent, one JSON object or literal text at a time.
        close: Called at the end, whatever ended it.
        headers: Beside the content type.
    """

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncIterator[Any], close: Callable[[], Awaitable[None]], headers: Mapping[str, str]
    ) -> None:
        self._events, self._close = events, close
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-store", **headers})

    def mapped(self, change: Callable[[AsyncIterator[Any]], AsyncIterator[Any]]) -> EventStream:
        """The same stream with other events."""
        self._events = change(self._events)
        return self

    async def __call__(self, scope: Any, receive: Receive, send: Callable[[Any], Awaitable[None]]) -> None:
        """Send the events; stop when the client hangs up."""
        try:
            await unless_gone(self._send(send), receive)
        except GoneError:
            scope["state"]["status"] = GONE
        finally:
            await self._close()

    async def _send(self, send: Callable[[Any], Awaitable[None]]) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async for event in self._events:
            body = b"data: %b\n\n" % (event if isinstance(event, bytes) else orjson.dumps(event))
            if isinstance(event, dict) and "type" in event:  # the responses API names its events
                body = b"event: %b\n%b" % (event["type"].encode(), body)
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
