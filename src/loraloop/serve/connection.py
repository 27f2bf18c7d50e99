"""A connection that gives a client only so long to send the head of a request."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""For the whole head of a request, from the connection or from the head's first byte on."""
CONNECTIONS = 512
"""Open at once; one more is closed at once, before the process has no file descriptor left for its database."""


class Connection(H11Protocol):
    """uvicorn's connection, which has no time-out before the first request nor within a head."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock, or close what is one connection too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
            return
        self._head = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def data_received(self, data: bytes) -> None:
        """Stop the clock when a head is whole; start it at the next one's first byte, and at what follows an answer.

        The latter is the body of a request that was refused before it was read.
        """
        super().data_received(data)
        unfinished = self.conn.their_state is h11.IDLE or self.conn.our_state is h11.DONE
        if not unfinished or self.transport.is_closing():
            self._stop()
        elif self._head is None and self.timeout_keep_alive_task is None:
            self._head = self.loop.call_later(HEAD_SECONDS, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop()
        super().connection_lost(exc)

    def _stop(self, *_: Any) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None
