"""The loop is killed at every step and run again: see ``kills.py``, which does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRANSITIONS = ("triggered", "prepared", "trained", "registered", "canary", "promoting", "promoted")
KILLS = Path(__file__).with_name("kills.py")


@pytest.fixture(scope="module")
def ends() -> list[dict[str, object]]:
    """What is left in the end: without a kill, after each kill, and after several ticks at once."""
    done = subprocess.run(
        [sys.executable, str(KILLS), "--steps", "--json"], capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_loop_killed_at_any_step_comes_to_the_same_end(ends):
    """SIGKILL at any step, run again: one promotion, each decision once in the ledger, equal weights, no open run."""
    undisturbed, *killed, _ = ends
    assert undisturbed == {
        "killed": "never", "state": "promoted", "cycles": 1, "versions": 2, "champion": 2, "promotions": 1,
        "rollouts": 1, "entries": 6, "doubles": 0, "running": 0, "untold": 0, "weights": undisturbed["weights"],
    }  # fmt: skip
    points = {each["killed"] for each in killed}
    assert {f"after commit: {state}" for state in TRANSITIONS} < points
    assert {f"after MLflow: alias {alias}" for alias in ("candidate", "canary", "champion")} < points
    assert [each for each in killed if each | {"killed": "never"} != undisturbed] == []


def test_of_several_ticks_at_once_one_works(ends):
    """Of three ticks at once one does the work and two leave with a line that says so; nothing is done twice."""
    undisturbed, *_, at_once = ends
    assert at_once["killed"] == "never; 3 ticks at once, of which 2 left"
    assert at_once | {"killed": "never"} == undisturbed
