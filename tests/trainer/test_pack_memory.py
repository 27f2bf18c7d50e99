"""A pack that meets the limit of its memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("short_of_memory.py")
TRIALS, ROOM = 4, 24 * 2**20


@pytest.fixture(scope="module")
def limited(tmp_path_factory):
    """What a process says of a pack that the kernel refuses memory to, and of the same pack with memory."""
    command = [sys.executable, str(SCRIPT), str(TRIALS), str(ROOM), str(tmp_path_factory.mktemp("packs"))]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA bounds allocations on Linux alone")
def test_a_pack_that_runs_out_of_memory_goes_on_with_fewer_trials_in_a_pass(limited):
    """Where malloc fails, passes are halved; every trial trains to its losses and weights, with dropout, and once."""
    assert limited["outcomes"] == ["trained"] * TRIALS
    assert f"memory did not suffice for {TRIALS} trials in a pass" in limited["warnings"][0]
    less, more = limited["losses"]
    assert less == [pytest.approx(losses, abs=1e-5) for losses in more]
    assert max(limited["differences"]) < 1e-5
