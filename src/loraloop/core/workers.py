"""Threads for blocking work of one kind, so that a kind that hangs holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Workers:
    """A few threads, which start when they are needed.

    Args:
        kind: The work that they do; it names them.
        threads: At most so many.
    """

    def __init__(self, kind: str, threads: int) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=kind)

    async def run(self, work: Callable[..., T], *arguments: Any) -> T:
        """What ``work`` returns; it comes to its end also where the caller is cancelled."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *arguments))
