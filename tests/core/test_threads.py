"""How the threads of a tensor operation wait."""

from __future__ import annotations

import os

import pytest

from loraloop.core.threads import SPINS, wait_briefly


@pytest.mark.parametrize(
    ("load", "given", "expected"),
    [
        (0.5, {}, ("PASSIVE", SPINS)),
        (1e6, {}, ("PASSIVE", None)),
        (0.5, {"OMP_WAIT_POLICY": "ACTIVE"}, ("ACTIVE", None)),
        (0.5, {"GOMP_SPINCOUNT": "7"}, ("PASSIVE", "7")),
    ],
)
def test_threads_wait_awake_where_a_core_is_free(monkeypatch, load, given, expected):
    """Threads wait awake for a moment unless the machine is busy, or the environment says how they wait."""
    monkeypatch.setattr(os, "environ", dict(given))
    monkeypatch.setattr(os, "getloadavg", lambda: (load, load, load))
    wait_briefly()
    assert (os.environ["OMP_WAIT_POLICY"], os.environ.get("GOMP_SPINCOUNT")) == expected
