"""Memory of a process of its own: of a single run, and of a pack that meets its limit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("memory_of_a_process.py")
TRIALS, ROOM = 4, 24 * 2**20


@pytest.fixture(scope="module")
def process(tmp_path_factory):
    """What a process says of its run alone, of a pack that is refused memory, and of the same pack with memory."""
    command = [sys.executable, str(SCRIPT), str(TRIALS), str(ROOM), str(tmp_path_factory.mktemp("packs"))]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_the_estimate_of_the_bundled_base_is_within_15_percent(process):
    """What is printed before a run is within 15% of the process's resident peak while it trains."""
    assert process["estimated"] == pytest.approx(process["measured"], rel=0.15)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA bounds allocations on Linux alone")
def test_a_pack_that_runs_out_of_memory_goes_on_with_fewer_trials_in_a_pass(process):
    """Where malloc fails, passes are halved; every trial trains to its losses and weights, with dropout, and once."""
    assert process["outcomes"] == ["trained"] * TRIALS
    assert f"memory did not suffice for {TRIALS} trials in a pass" in process["warnings"][0]
    less, more = process["losses"]
    assert less == [pytest.approx(losses, abs=1e-5) for losses in more]
    assert max(process["differences"]) < 1e-5
