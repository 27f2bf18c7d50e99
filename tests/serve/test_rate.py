"""How many requests a client may send."""

from __future__ import annotations

import pytest

from loraloop.serve import rate
from loraloop.serve.rate import Rate


class Clock:
    """A time that is set."""

    now = 100.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def test_a_window_and_the_rest_of_the_one_before():
    """After a full window a client gets in again at the pace at which the full one leaves the last ``seconds``."""
    clock = Clock()
    limit = Rate(4, 60, clock)
    assert [limit.wait("a") for _ in range(5)] == [0, 0, 0, 0, 60]
    assert limit.wait("b") == 0
    clock.now += 60
    assert limit.wait("a") == pytest.approx(15)
    clock.now += 15
    assert limit.wait("a") == 0
    assert limit.wait("a") == pytest.approx(15)
    clock.now += 120
    assert [limit.wait("a") for _ in range(5)][:4] == [0, 0, 0, 0]


def test_clients_are_remembered_within_bounds(monkeypatch):
    """However many clients come, a bounded number is remembered, and however many requests, two counters each."""
    monkeypatch.setattr(rate, "CLIENTS", 3)
    limit = Rate(10**6, 60)
    for number in range(1000):
        limit.wait(f"address {number % 10}")
    assert len(limit._windows) == 3
