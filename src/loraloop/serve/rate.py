"""How many requests a client may send: two counters for each, whatever the limit."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

CLIENTS = 10_000
"""Clients that are remembered; beyond, the one that began longest ago starts afresh."""


@dataclass(slots=True)
class _Window:
    began: float
    before: int = 0
    count: int = 0


class Rate:
    """At most ``amount`` requests of a client in any ``seconds``, as this window's count and the last one's tell.

    The last window counts for as much of it as the last ``seconds`` still hold, as if its requests had come evenly
    (Cloudflare, "How we built rate limiting capable of scaling to millions of domains", 2017).
    """

    def __init__(self, amount: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._amount, self._seconds, self._clock = amount, seconds, clock
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def wait(self, client: str) -> float:
        """Count a request; 0 where it may go on, else the seconds after which one may be let in again."""
        now = self._clock()
        window = self._window(client, now)
        rest = self._seconds - (now - window.began)
        held = window.before * rest / self._seconds
        if held + window.count + 1 <= self._amount:
            window.count += 1
            return 0.0
        if window.count >= self._amount:
            return rest
        return min(rest, (held + window.count + 1 - self._amount) * self._seconds / window.before)

    def _window(self, client: str, now: float) -> _Window:
        window = self._windows.get(client)
        if window is None:
            window = self._windows[client] = _Window(now)
            if len(self._windows) > CLIENTS:
                self._windows.popitem(last=False)
        over = int((now - window.began) // self._seconds)
        if over:
            window.before, window.count = (window.count if over == 1 else 0), 0
            window.began += over * self._seconds
        return window
