"""Calls of a server that end in time, whatever it sends."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio
from anyio.from_thread import start_blocking_portal

T = TypeVar("T")


def within(seconds: float, call: Callable[[], Awaitable[T]]) -> T:
    """What ``call`` returns.

    An HTTP client's own timeouts bound the wait for the next byte, so that a server which sends a blank now and then
    never exceeds them. The event loop has a thread of its own, since that of a notebook runs one already.

    Raises:
        TimeoutError: It took longer than ``seconds``; the connection is closed.
    """

    async def bounded() -> T:
        with anyio.move_on_after(seconds):
            return await call()
        raise TimeoutError(f"no whole answer within judge.seconds={seconds:g}")

    with start_blocking_portal() as portal:
        return portal.call(bounded)
