"""The loop is killed at every step and run again: see ``kills.py``, which does it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from waiting import PATIENCE

TRANSITIONS = ("triggered", "prepared", "trained", "registered", "canary", "promoting", "promoted")
KILLS = Path(__file__).with_name("kills.py")


def test_a_loop_that_is_killed_or_doubled_comes_to_the_same_end():
    """SIGKILL at any step and run again, or three ticks at once: one promotion, each decision once, equal weights."""
    command = [sys.executable, str(KILLS), "--steps", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3 * PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    undisturbed, *killed, at_once = (json.loads(line) for line in done.stdout.splitlines())
    assert undisturbed == {
        "killed": "never", "state": "promoted", "cycles": 1, "versions": 2, "champion": 2, "promotions": 1,
        "rollouts": 1, "entries": 6, "doubles": 0, "running": 0, "unpublished": 0, "weights": undisturbed["weights"],
    }  # fmt: skip
    points = {each["killed"] for each in killed}
    assert {f"after commit: {state}" for state in TRANSITIONS} < points
    assert {"after MLflow: create version", "after MLflow: alias champion"} < points
    assert [each for each in killed if each | {"killed": "never"} != undisturbed] == []
    assert at_once["killed"] == "never; 3 ticks at once, of which 2 left"
    assert at_once | {"killed": "never"} == undisturbed
