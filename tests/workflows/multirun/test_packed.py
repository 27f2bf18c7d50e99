"""Jobs that train at once, and that nobody can tell it by their results."""

from __future__ import annotations

import re

import pytest

GRID = ("-m", "lora=r8,r16", "lora.use_dora=false,true")
SMALL = ("source.runs=2", "trainer.max_steps=3", "evaluation.max_rows=8", "tracker.system_metrics=false")


@pytest.fixture(scope="module")
def grids(office):
    """The same four jobs, of which two can be packed, one by one and packed: what was seen and every run."""
    return {
        folder: (office(*GRID, *SMALL, *how, f"folder={folder}"), runs(office, folder)) for folder, how in HOW.items()
    }


HOW = {"one_by_one": (), "packed": ("hydra/launcher=packed",)}


def found(desk, folder):
    """Every run in ``folder``."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{desk.folder}/{folder}/mlflow.db")
    return client.search_runs([client.get_experiment_by_name("loraloop").experiment_id])


def runs(desk, folder):
    """Every run in ``folder`` by rank and DoRA."""
    return {(run.data.params["lora.r"], run.data.params["lora.use_dora"]): run for run in found(desk, folder)}


def test_every_job_has_the_results_that_it_would_have_had_alone(grids):
    """Losses while training, validation and every score agree within 1e-4 with the jobs that ran one by one."""
    (_, alone), (_, packed) = grids.values()
    assert set(alone) == set(packed) == {(rank, dora) for rank in ("8", "16") for dora in ("False", "True")}
    for key, run in alone.items():
        for name in ("train/loss", "eval/loss", "final/loss", "final/chrf", "base/loss"):
            assert packed[key].data.metrics[name] == pytest.approx(run.data.metrics[name], abs=1e-4), (key, name)


def test_runs_compare_key_by_key(grids):
    """A packed run has the parameters and metrics of one that ran alone, under the same keys."""
    (_, alone), (_, packed) = grids.values()
    for key, run in alone.items():
        assert {*packed[key].data.params} == {*run.data.params}
        assert {*packed[key].data.metrics} == {*run.data.metrics}
        same = {name: value for name, value in run.data.params.items() if "folder" not in name and "cache" not in name}
        assert {name: packed[key].data.params[name] for name in same} == same


def test_what_packs_is_packed_and_the_rest_is_told(grids):
    """The two plain jobs train at once; the two with DoRA run one by one, for a reason that is said."""
    (quiet, _), (seen, packed) = grids.values()
    assert "2 trials train at once" in seen.out + seen.err
    assert "2 jobs run one by one, because they cannot be packed: lora.use_dora" in seen.out + seen.err
    assert "at once" not in quiet.out + quiet.err
    assert {run.info.status for run in packed.values()} == {"FINISHED"}


def test_the_best_of_packed_adapters_is_registered_like_that_of_others(grids):
    """Packed or not, the run with the lowest loss is the only one that says of itself that it is a version."""
    for _, ended in grids.values():
        best = min(ended.values(), key=lambda run: run.data.metrics["final/loss"])
        assert [run.data.tags.get("registry.version") for run in ended.values() if run is not best] == [None] * 3
        assert best.data.tags["registry.version"] == "loraloop/1"


def test_a_job_that_fails_leaves_the_others_alone(office):
    """A scaling that makes the loss infinite fails its own job, as it would alone; the other one is registered."""
    how = ("trainer.max_grad_norm=0", "hydra/launcher=packed", "folder=broken")
    seen = office.attempt("-m", "lora.alpha=1e38,32", *SMALL, *how)
    assert seen.code == 1
    assert re.search(r"loraloop: the loss is (nan|inf) at step \d", seen.err)
    ended = {run.data.params["lora.alpha"]: run for run in found(office, "broken")}
    assert ended["1e+38"].info.status == "FAILED"
    assert ended["32.0"].info.status == "FINISHED"
    assert ended["32.0"].data.tags["registry.version"] == "loraloop/1"


def test_a_job_that_cannot_begin_ends_alone(monkeypatch, office):
    """Where a job's run cannot be begun, the next one takes its place, and the others train to their ends."""
    from loraloop.errors import LoraloopError
    from loraloop.workflows.experiment import Experiment

    begin = Experiment.log_start

    def refused(self, run, *rest):
        if self.lora.r == 8:
            raise LoraloopError("the tracker is away")
        begin(self, run, *rest)

    monkeypatch.setattr(Experiment, "log_start", refused)
    how = ("hydra/launcher=packed", "hydra.launcher.max_trials=2", "folder=begun")
    seen = office.attempt("-m", "lora=r8,r16,r32", *SMALL, *how)
    assert seen.code == 1
    ended = {run.data.params.get("lora.r"): run.info.status for run in found(office, "begun")}
    assert ended == {"8": "FAILED", "16": "FINISHED", "32": "FINISHED"}
