"""Threads for blocking work of one kind."""

from __future__ import annotations

import asyncio
import threading

from loraloop.core.workers import Workers
from waiting import PATIENCE


def test_a_kind_that_hangs_holds_up_no_other():
    """While every thread of one kind hangs, work of another kind is done."""
    gate = threading.Event()

    async def both() -> int:
        first, second = Workers("first", 1), Workers("second", 1)
        hanging = asyncio.create_task(first.run(gate.wait, PATIENCE))
        done = await second.run(pow, 2, 5)
        gate.set()
        assert await hanging
        return done

    assert asyncio.run(both()) == 32
