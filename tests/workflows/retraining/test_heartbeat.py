"""A sign of life from a long step."""

from __future__ import annotations

import itertools
import threading

from loraloop.errors import StoreError
from loraloop.workflows.retraining.heartbeat import heartbeat
from waiting import PATIENCE


def test_a_long_step_gives_signs_of_life_until_it_ends():
    """It is noted again and again while the block runs, also after a note that failed, and not after it."""
    third, calls = threading.Event(), itertools.count(1)

    def beat() -> None:
        number = next(calls)
        if number == 1:
            raise StoreError("locked")
        if number == 3:
            third.set()

    with heartbeat(beat, every=0.001):
        assert third.wait(PATIENCE)
    assert "heartbeat" not in [each.name for each in threading.enumerate()]
