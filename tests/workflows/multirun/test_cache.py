"""What the jobs of a multirun share, and that none of them notices."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from loraloop.records import Dataset, Example, Job, Provenance, Row
from loraloop.source.flips import Flips
from loraloop.workflows.experiment import Experiment
from loraloop.workflows.multirun.cache import Cache
from loraloop.workflows.parts import ExperimentParts

SMALL = ("source.runs=2", "trainer.max_steps=3", "evaluation.max_rows=8", "tracker=none")


def made(cache: Cache, *keys: str) -> list[int]:
    """For each key, which of the things that were made it was given."""
    count = iter(range(100))
    return [cache.get("rows", key, lambda: next(count)) for key in keys]


def test_an_equal_key_is_made_once():
    """What was made for a key is given to the next that asks for it."""
    assert made(Cache(), "a", "a", "a") == [0, 0, 0]


def test_another_key_is_made_anew():
    """Another key gets its own, and the latest alone is kept."""
    assert made(Cache(), "a", "b", "a") == [0, 1, 2]


def experiment(cache: Cache | None, **config: Any) -> Experiment:
    """An experiment of a job with this configuration, whose parts count how often they are asked."""
    job = Job(stage="experiment", seed=0, config=config, output=Path("nowhere"), choices={}, cache=cache)
    unused: Any = None
    parts: dict[str, Any] = dict.fromkeys((each.name for each in fields(ExperimentParts)), unused)
    evaluation = SimpleNamespace(score_base=lambda _, rows, correct: f"score of {len(rows)} rows")
    return Experiment(**parts | {"job": job, "source": Flips(), "evaluation": evaluation})


def rows(count: int) -> Dataset:
    """A dataset with so many held-out rows."""
    row = Row("", "", Example.one_turn(input="", output="", provenance=Provenance(source="test")))
    return Dataset(train=(), validation=(row,) * count, fingerprint=str(count))


def test_a_job_is_not_given_the_score_of_other_rows():
    """Two jobs with equal configuration and different rows, as retrainings of two roles, have their own scores."""
    unused: Any = None
    cache = Cache()
    scores = [experiment(cache, source=1).base_score(unused, rows(count)) for count in (3, 4)]
    assert scores == ["score of 3 rows", "score of 4 rows"]


@pytest.mark.parametrize(
    ("cache", "configs", "loads"),
    [(Cache(), (1, 1), 1), (Cache(), (1, 2), 2), (None, (1, 1), 2)],
)
def test_jobs_share_what_their_configuration_decides(cache, configs, loads):
    """The jobs of a multirun whose named groups are equal share what these decide; a job on its own shares nothing."""
    loaded = []
    model = SimpleNamespace(skeleton=lambda: loaded.append(1))
    for number, config in enumerate(configs):
        replace(experiment(cache, model=config, lora=number), model=model).skeleton()
    assert len(loaded) == loads


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


@pytest.mark.parametrize("launcher", ["basic", "packed"])
def test_a_multirun_loads_its_base_once(desk, monkeypatch, launcher):
    """Jobs that one launcher runs in one process, packed or one by one, train on one base in memory."""
    from loraloop.model.causal import CausalLM

    loads, load = [], CausalLM.load
    monkeypatch.setattr(CausalLM, "load", lambda self: loads.append(1) or load(self))
    desk("-m", "lora.use_dora=true", "lora.r=4,8", *SMALL, f"hydra/launcher={launcher}")
    assert len(loads) == 1


def test_a_job_may_return_several_results(desk):
    """objective=[A,B] is what a sweep with two directions sees; an unknown result is refused with those that exist."""
    seen = desk.attempt(*SMALL, "objective=[loss,exactmatch]")
    assert seen.code == 2
    assert "objective=exactmatch: no such result (did you mean exact_match?)" in seen.err
    assert "trainable_parameters" in seen.err
    assert not (desk.folder / "mlruns").exists() or not list((desk.folder / "mlruns").rglob("adapter"))
