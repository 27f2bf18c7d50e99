"""How the threads of a tensor operation wait."""

from __future__ import annotations

import os

import pytest

from loraloop.core.threads import SPINS, wait_briefly


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("PASSIVE", SPINS)),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
        ({"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
    ],
)
def test_what_the_person_set_is_left_alone(monkeypatch, given, expected):
    """Threads wait awake for a moment and then sleep, unless the environment says how they wait."""
    monkeypatch.setattr(os, "environ", dict(given))
    wait_briefly()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT")) == expected
