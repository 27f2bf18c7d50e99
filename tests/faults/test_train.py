"""What goes wrong while an adapter is trained."""

from __future__ import annotations

import json
import re

import pytest

from faults.conftest import FULL_DISK, SMALL

EXTRA = "from loraloop.trainer.monitor import Monitor\n"
AT_STEP_3 = f"""{EXTRA}
def step(monitor, state, control, plain=Monitor.step):
    if state.global_step == 3:
        die()
    plain(monitor, state, control)
Monitor.step = step
"""

TOO_LARGE_AT_STEP_2 = f"""{EXTRA}
import resource
import psutil
import torch
def step(monitor, state, control, plain=Monitor.step):
    if state.global_step == 2:
        most = psutil.Process().memory_info().data + 300_000_000
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        torch.empty(2_000_000_000, dtype=torch.int8)
    plain(monitor, state, control)
Monitor.step = step
"""
"""A tensor of 2 GB where 300 MB are left."""


def whole(office):
    """An uninterrupted run, made once."""
    if not (office.folder / "whole").exists():
        office(*SMALL, "hydra.run.dir=whole")


@pytest.mark.fault("kill -9", "train", "resumed from step 2 to the bits of an uninterrupted run")
def test_killed(office, broken, told):
    """Kill -9 in a step: the resumed run starts at the checkpoint and ends with an uninterrupted run's adapter."""
    folder = "hydra.run.dir=killed"
    broken.killed(AT_STEP_3, *SMALL, "trainer.save_steps=2", folder)
    assert [path.name for path in (office.folder / "killed/checkpoints").iterdir()] == ["checkpoint-2"]
    resumed = office(*SMALL, "trainer.save_steps=2", "resume=killed", "hydra.run.dir=resumed")
    whole(office)
    one, other = (office.folder / name / "adapter/adapter_model.safetensors" for name in ("resumed", "whole"))
    assert one.read_bytes() == other.read_bytes()
    told(resumed.line("registry"))


@pytest.mark.fault("disk full", "train", "the run ends; no half adapter, no checkpoint that verifies falsely")
def test_a_full_disk(office, broken, told):
    """A disk that fills up at a checkpoint ends the run with one sentence, and an earlier checkpoint stays whole."""
    seen = broken(FULL_DISK.format(bytes=200_000), *SMALL, "trainer.save_steps=2", "hydra.run.dir=full")
    assert (seen.code, "Traceback" in seen.err) == (1, False), seen.err
    assert not (office.folder / "full/adapter").exists()
    assert not list(office.folder.glob("full/checkpoints/*/manifest.json"))
    told(seen.err)


@pytest.mark.fault("out of memory", "train", "the run ends; nothing is registered")
def test_too_little_memory(office, broken, told):
    """An allocation that fails ends the run with one sentence that names what to lower, and registers nothing."""
    seen = broken(TOO_LARGE_AT_STEP_2, *SMALL, "hydra.run.dir=little")
    assert (seen.code, "Traceback" in seen.err) == (1, False), seen.err
    assert "trainer.micro_batch" in seen.err
    assert not (office.folder / "little/adapter").exists()
    told(seen.err)


@pytest.mark.fault("two trainers in a folder", "train", "the second is refused, the first one's files are untouched")
def test_two_trainers_in_a_folder(office, told):
    """A second run in a folder that holds a run is refused, and the first one's files stay as they were."""
    whole(office)
    before = {path: path.read_bytes() for path in (office.folder / "whole").rglob("*.safetensors")}
    seen = office.attempt(*SMALL, "hydra.run.dir=whole")
    assert seen.code == 1
    assert before == {path: path.read_bytes() for path in before}
    told(seen.err)


@pytest.mark.fault("MLflow down", "train", "the run does not begin")
def test_mlflow_refuses(desk, told):
    """A tracking server that refuses connections stops the run before it trains, and names the way on."""
    seen = desk.attempt(*SMALL, "tracker=mlflow", "tracker.uri=http://127.0.0.1:9")
    assert seen.code in {1, 2}
    assert "Traceback" not in seen.err
    assert "estimate" not in seen.out
    told(seen.err)


@pytest.mark.fault("clock back by an hour", "train", "same adapter, positive times, the ledger verifies")
def test_a_clock_that_goes_back(office, broken, told):
    """A clock set back by an hour during a run changes neither its result nor the order of the ledger."""
    back = f"""import time
real, back = time.time, []
time.time = lambda: real() - (3600 if back else 0)
{EXTRA}
def step(monitor, state, control, plain=Monitor.step):
    back.append(1)
    plain(monitor, state, control)
Monitor.step = step
"""
    seen = broken(back, *SMALL, "hydra.run.dir=back", "registry.name=clock")
    assert seen.code == 0, seen.err
    took = float(re.search(r"steps in ([\d.]+) s", seen.line("speed"))[1])
    assert 0 < took < 3000
    whole(office)
    one, other = (office.folder / name / "adapter/adapter_model.safetensors" for name in ("back", "whole"))
    assert one.read_bytes() == other.read_bytes()
    entries = [json.loads(line) for line in (office.folder / "mlruns/clock.ledger.jsonl").read_text().splitlines()]
    assert [entry["event"] for entry in entries][:1] == ["register"]
    assert "hold, each continues the one before it" in office("stage=ledger", "verify=true", "registry.name=clock").out
    told(seen.line("registry"))
