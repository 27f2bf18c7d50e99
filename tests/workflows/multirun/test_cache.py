"""What the jobs of a multirun share, and that none of them notices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from loraloop.records import Job
from loraloop.workflows.multirun import cache

SMALL = ("source.runs=2", "trainer.max_steps=3", "evaluation.max_rows=8", "tracker=none")


@pytest.fixture(autouse=True)
def nothing_kept(monkeypatch):
    """Each test begins without what another has kept."""
    monkeypatch.setattr(cache, "_kept", {})
    monkeypatch.setattr(cache, "_sweep", None)


def job(sweep: str | None, **config: object) -> Job:
    """A job of the multirun ``sweep`` with this configuration."""
    return Job(
        stage="experiment",
        seed=0,
        config=config,
        output=Path("nowhere"),
        choices={},
        sweep=Path(sweep) if sweep else None,
    )


def made(*jobs: Job) -> list[int]:
    """For each job, which of the things that were made for ``source`` it was given."""
    count = iter(range(100))
    return [cache.cached(each, "rows", ("source",), lambda: next(count)) for each in jobs]


def test_jobs_of_one_multirun_share_what_they_have_in_common():
    """The same configuration of the named groups is made once per multirun, whatever else differs."""
    assert made(job("a", source=1, lora=8), job("a", source=1, lora=16), job("a", source=1, lora=64)) == [0, 0, 0]


def test_another_configuration_is_made_anew():
    """A job with other settings gets its own, and the latest alone is kept."""
    assert made(job("a", source=1), job("a", source=2), job("a", source=1)) == [0, 1, 2]


def test_another_multirun_shares_nothing():
    """Neither another multirun nor a job on its own is given what an earlier one made."""
    assert made(job("a", source=1), job("b", source=1), job(None, source=1), job(None, source=1)) == [0, 1, 2, 3]


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "adapter" / "adapter_model.safetensors")


@pytest.mark.parametrize("first", ["lora.r=4", "lora.init=pissa"])
def test_a_later_job_gets_the_bits_that_it_would_have_had_alone(desk, first):
    """A job trains to the same weights on a base that another job, even one that moves the base, has used before."""
    key, _, value = first.partition("=")
    other = {"lora.r": "8", "lora.init": "default"}[key]
    desk("-m", f"{key}={value},{other}", *SMALL, "hydra.sweep.dir=both")
    desk(f"{key}={other}", *SMALL, "hydra.run.dir=alone")
    alone, later = weights(desk.folder / "alone"), weights(desk.folder / "both" / "1")
    assert alone.keys() == later.keys()
    assert all(np.array_equal(alone[name], later[name]) for name in alone)


def test_a_job_may_return_several_results(desk):
    """objective=[A,B] is what a sweep with two directions sees; an unknown result is refused with those that exist."""
    seen = desk.attempt(*SMALL, "objective=[loss,exactmatch]")
    assert seen.code == 2
    assert "objective=exactmatch: no such result (did you mean exact_match?)" in seen.err
    assert "trainable_parameters" in seen.err
    assert not (desk.folder / "mlruns").exists() or not list((desk.folder / "mlruns").rglob("adapter"))
