"""``hydra/launcher=isolated``: a process for each job."""

from __future__ import annotations

import os
import textwrap

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

SMALL = ("source.runs=2", "trainer.max_steps=3", "evaluation.max_rows=8", "tracker=none")
FATAL = """
    import os

    from loraloop.errors import DataError
    from loraloop.core.part import part
    from loraloop.source.flips import Flips


    @part
    class Killed(Flips):
        def collect(self, ocr):
            os.kill(os.getpid(), 9)


    @part
    class Refused(Flips):
        def collect(self, ocr):
            raise DataError("no such coin")


    @part
    class Odd(Flips):
        def collect(self, ocr):
            raise type("Strange", (Exception,), {})("cannot be pickled")
"""


@pytest.fixture(scope="module")
def launched(office):
    """A sweep of four jobs, two at a time, of which one succeeds; the desk and what was seen."""
    (office.folder / "fatal.py").write_text(textwrap.dedent(FATAL))
    targets = "loraloop.source.flips.Flips,fatal.Killed,fatal.Refused,fatal.Odd"
    seen = office.process(
        "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", f"source._target_=choice({targets})",
        "hydra.sweeper.max_failure_rate=1", "hydra.sweeper.max_retries=0", *SMALL, "allow_targets=[fatal.]",
        "hydra/launcher=isolated", "hydra.launcher.processes=2", "hydra.sweep.dir=jobs",
        PYTHONPATH=str(office.folder),
    )  # fmt: skip
    assert seen.code == 0, seen
    lines = [line for line in seen.out.splitlines() if line.startswith("trial ")]
    return office, {line.split("source._target_=")[1].split()[0]: line for line in lines}


def number(line: str) -> str:
    return line.split()[1]


def test_a_job_ends_with_the_bits_of_one_in_process(launched):
    """A forked job trains to the same weights, and what it prints is in its folder."""
    desk, lines = launched
    folder = desk.folder / "jobs" / number(lines["loraloop.source.flips.Flips"])
    assert "held-out rows" in (folder / "console.txt").read_text()
    desk(*SMALL, "hydra.run.dir=alone")
    apart, alone = (load_file(place / "adapter/adapter_model.safetensors") for place in (folder, desk.folder / "alone"))
    assert apart.keys() == alone.keys()
    assert all(np.array_equal(apart[name], alone[name]) for name in alone)


def test_a_killed_job_costs_only_itself(launched):
    """A job whose process is killed failed, by which signal is said, and the others have their own results."""
    _, lines = launched
    assert "ChildProcessError: the job's process ended without a result (signal 9)" in lines["fatal.Killed"]
    whole = lines["loraloop.source.flips.Flips"]
    assert whole.split()[2] == "complete", whole


def test_an_exception_arrives_as_it_was(launched):
    """What a job raises arrives with its message; of an exception that does not pickle, name and message arrive."""
    _, lines = launched
    assert "no such coin" in lines["fatal.Refused"]
    assert "RuntimeError: Strange: cannot be pickled" in lines["fatal.Odd"]


def test_no_process_is_left(launched):
    """No child of the sweep outlives it."""
    desk, _ = launched
    alive = [process for process in psutil.process_iter(["cwd"]) if process.info["cwd"] == str(desk.folder)]
    assert [process for process in alive if process.pid != os.getpid()] == []
