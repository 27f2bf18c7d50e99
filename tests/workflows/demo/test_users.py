"""Simulated users: reproducible, and many."""

from __future__ import annotations

from typing import Any

import numpy as np

from loraloop.source.flips import Flips
from loraloop.workflows.demo.users import PEOPLE, Users


def test_users_ask_the_same_again():
    """The same seed gives the same users, questions and opinions; they are many, and each asks of its own accord."""

    def plan() -> list[Any]:
        flips = Flips(runs=1).collect(None).examples
        users = Users("http://127.0.0.1", "validator", flips, Flips().correct, np.random.default_rng(3))
        return [*users._plan(200), *users._plan(100)]

    assert plan() == plan()
    assert len({each.conversation for each in plan()}) == 300
    assert len({each.user for each in plan()}) == PEOPLE
