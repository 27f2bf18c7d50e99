"""A grid: what it says before its first job, what it leaves after its last, and that it promotes nothing."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from waiting import PATIENCE, until

SMALL = ("source.runs=2", "trainer.max_steps=3", "evaluation.max_rows=8", "tracker.system_metrics=false")
PASSES = ("gate.min_rows=5", "gate.metric=loss")


@pytest.fixture(scope="module")
def grid(office):
    """Two ranks, each of which the gate passes, packed and with another name; the desk and what was seen."""
    return office, office("-m", "lora=r8,r16", *SMALL, *PASSES, "registry.name=my.grid", "seed=3")


def test_a_grid_registers_its_best_and_promotes_nothing(grid):
    """Of two runs that pass the gate the one with the lower loss is a version, and it is candidate alone."""
    desk, seen = grid
    assert desk.aliases("my.grid") == {"candidate": 1}
    (version,) = desk.versions("my.grid")
    ended = [run for run in desk.runs() if run.data.params.get("registry.name") == "my.grid"]
    assert version.run_id == min(ended, key=lambda run: run.data.metrics["final/loss"]).info.run_id
    assert [run.data.tags["gate"] for run in ended] == ["passed", "passed"]
    end = seen.out[seen.out.index("runs of the multirun") :]
    assert re.search(r"registry +my.grid version 1 \(candidate\)\n +gate +passed", end)
    order = [line.split()[2] for line in end.splitlines() if "lora=r" in line]
    assert order == [
        f"lora=r{run.data.params['lora.r']}" for run in sorted(ended, key=lambda r: r.data.metrics["final/loss"])
    ]


def test_the_printed_line_promotes_it_from_any_folder(grid, tmp_path):
    """The line that the grid prints, pasted into a shell in another folder, makes the version champion."""
    desk, seen = grid
    line = seen.out[seen.out.index("runs of the multirun") :].split("to promote it")[1].splitlines()[0].strip()
    line = line.replace("loraloop ", f"{sys.executable} -m loraloop ", 1)
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, capture_output=True, timeout=PATIENCE)
    assert desk.aliases("my.grid") == {"candidate": 1, "champion": 1}


def test_an_untracked_grid_in_other_processes_registers_its_best(office):
    """With tracker=none and hydra/launcher=isolated, the best job's adapter is registered from its folder."""
    how = ("tracker=none", "registry.name=untracked", "hydra/launcher=isolated")
    seen = office.process("-m", "trainer.learning_rate=1e-9,5e-3", *SMALL[:3], *PASSES, *how)
    assert office.aliases("untracked") == {"candidate": 1}
    order = [
        line.split()[2] for line in seen.out.splitlines() if line.split()[2:3] and "learning_rate=" in line.split()[2]
    ]
    assert order[-2:] == ["trainer.learning_rate=0.005", "trainer.learning_rate=1e-09"]


def test_what_is_varied_is_said_before_the_first_job(grid):
    """Standard output begins with a table of the parameters that are varied, their values and their origin."""
    _, seen = grid
    lines = [line.split() for line in seen.out.splitlines()[:4]]
    assert (lines[0], lines[1], lines[3]) == (
        ["varied"], ["parameter", "values", "from"], ["lora", "choice(r8,r16)", "command", "line"],
    )  # fmt: skip


def test_an_interrupted_grid_says_how_to_register_the_best_so_far(desk):
    """After an interrupt nothing is registered, and the printed command compares the runs that have ended."""
    process = desk.start("-m", "trainer.max_steps=3,2000", *SMALL[:1], *SMALL[2:], "registry.name=stopped")
    until(
        lambda: list(desk.folder.glob("mlruns/jobs/*/1/dataset.jsonl")) or process.poll() is not None, "job 1 has begun"
    )
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=PATIENCE)
    line = out.split("1 run has ended; to compare and register it: ")[1].splitlines()[0]
    assert not (desk.folder / "mlruns/stopped.ledger.jsonl").exists()
    assert line.startswith(f"cd {desk.folder} && loraloop stage=multirun_report multirun=")
    desk(*line.split()[4:])
    assert desk.aliases("stopped") == {"candidate": 1}
