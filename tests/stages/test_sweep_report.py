"""What a sweep leaves: trials as nested runs, pictures, and a winner before the gate."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import textwrap

import optuna
import pytest
import yaml

import warm
from waiting import until

SWEEP = ("-m", "sweeps=rank_alpha_lr")
SMALL = ("source.runs=2", "trainer.max_steps=3", "evaluation.max_rows=8", "tracker.system_metrics=false")
PARAMS = {"lora.r", "lora.alpha_over_r", "trainer.learning_rate"}


def study(desk, name="rank_alpha_lr"):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{desk.folder}/mlruns/optuna.db")


def runs(desk):
    """The sweep's own run, and those of its trials by number."""
    (parent,) = (run for run in desk.runs() if "study" in run.data.tags)
    return parent, {int(run.data.tags["trial"]): run for run in desk.runs() if "trial" in run.data.tags}


def only(swept):
    (seen,) = swept.seen.values()
    return seen


def test_every_trial_is_a_run_below_the_sweeps_own(swept):
    """The runs of all trials are children of one run, with the trial's parameters and loss under the same keys."""
    parent, trials = runs(swept)
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "rank_alpha_lr"
    assert sorted(trials) == [trial.number for trial in study(swept).trials] == list(range(6))
    assert {run.data.tags["mlflow.parentRunId"] for run in trials.values()} == {parent.info.run_id}
    for trial in study(swept).trials:
        run = trials[trial.number]
        logged = {key: float(run.data.params[key]) for key in ("lora.r", "lora.alpha", "trainer.learning_rate")}
        alpha = trial.params["lora.r"] * trial.params["lora.alpha_over_r"]
        kept = {key: value for key, value in trial.params.items() if key in logged}
        assert logged == pytest.approx(kept | {"lora.alpha": alpha})
        assert trial.user_attrs["run"] == run.info.run_id
    assert len({frozenset(run.data.params) for run in trials.values()}) == 1


def test_a_pruned_trial_is_never_a_failed_one(swept):
    """Trials that the pruner ended are PRUNED in the study and carry the reason in MLflow, where no run is FAILED."""
    _, trials = runs(swept)
    pruned = {trial.number for trial in study(swept).trials if trial.state.name == "PRUNED"}
    assert pruned
    assert {number for number, run in trials.items() if "pruned" in run.data.tags} == pruned
    assert {run.info.status for run in trials.values()} == {"FINISHED", "KILLED"}
    assert {number for number, run in trials.items() if run.info.status == "KILLED"} == pruned
    assert all("by MedianPruner" in trials[number].data.tags["pruned"] for number in pruned)
    whole = set(trials) - pruned
    assert all("final/loss" in trials[number].data.metrics for number in whole)
    assert not any("final/loss" in trials[number].data.metrics for number in pruned)


def test_the_winner_is_the_best_trial_and_a_candidate(swept):
    """The best completed trial passes the gate, is the only version and is candidate, not champion."""
    best = study(swept).best_trial
    (version,) = swept.versions()
    assert version.run_id == best.user_attrs["run"]
    assert swept.aliases() == {"candidate": 1}
    assert f"winner   trial {best.number}, run {best.user_attrs['run']}" in only(swept).out
    manifest = json.loads((swept.artifacts(swept.client.get_run(version.run_id)) / "adapter/manifest.json").read_text())
    assert manifest["parent_run_id"] == runs(swept)[0].info.run_id
    assert manifest["rank"] == best.params["lora.r"]


def test_the_sweep_says_what_it_found(swept):
    """Standard output holds a line for each trial, a table with the best first, and nothing that the trials print."""
    lines = [line.split() for line in only(swept).out.splitlines() if line.startswith("trial ")]
    assert [(int(line[1]), line[2]) for line in lines] == [
        (trial.number, {"COMPLETE": "complete", "PRUNED": "pruned"}[trial.state.name]) for trial in study(swept).trials
    ]
    values = sorted((trial.value, trial.number) for trial in study(swept).trials if trial.state.name == "COMPLETE")
    rows = [line.split() for line in only(swept).out.split("best trials")[1].split("importance")[0].splitlines()]
    assert [(row[1], int(row[0])) for row in rows if row[:1] and row[0].isdigit()] == [
        (f"{value:.4f}", number) for value, number in values
    ]
    assert "held-out rows" not in only(swept).out
    assert "held-out rows" in next(swept.folder.glob("mlruns/jobs/*/0/console.txt")).read_text()


def test_plots_and_results_are_kept_with_the_sweep(swept):
    """The sweep's run keeps Optuna's plots and how the parameters weigh; its folder keeps the best parameters."""
    parent, _ = runs(swept)
    plots = {path.stem: path.read_bytes()[:4] for path in (swept.artifacts(parent) / "plots").iterdir()}
    assert plots == dict.fromkeys(("history", "importances", "slices", "parallel_coordinates"), b"\x89PNG")
    weights = {
        key.removeprefix("importance/"): value for key, value in parent.data.metrics.items() if "importance" in key
    }
    assert set(weights) == PARAMS
    assert sum(weights.values()) == pytest.approx(1)
    best = study(swept).best_trial
    assert parent.data.metrics["best/value"] == pytest.approx(best.value)
    results = yaml.safe_load(next(swept.folder.glob("mlruns/jobs/*/optimization_results.yaml")).read_text())
    assert (results["best_params"], results["best_value"]) == (best.params, best.value)


def test_a_winner_that_reigns_already_is_not_held_against_itself(swept, tmp_path):
    """After the winner was promoted, the report says that it is the champion, and no version is added."""
    shutil.copytree(swept.folder / "mlruns", tmp_path / "mlruns", ignore=shutil.ignore_patterns("jobs"))
    desk = type(swept)(tmp_path)
    desk("stage=promote", "version=1")
    seen = desk("stage=sweep_report", "study=rank_alpha_lr", "gate.metric=loss", "tracker.system_metrics=false")
    assert "passed: it is the champion, trained again" in seen.out
    assert len(desk.versions()) == 1
    assert desk.aliases()["champion"] == 1


def test_a_report_of_an_unknown_study_names_those_that_there_are(swept, desk):
    """stage=sweep_report with a mistyped study says which one was probably meant."""
    storage = f"sqlite:///{swept.folder}/mlruns/optuna.db"
    seen = desk.attempt("stage=sweep_report", "study=rank_alpa_lr", f"storage={storage}")
    assert (seen.code, seen.out) == (1, "")
    assert seen.err == (
        f"loraloop: study=rank_alpa_lr: {storage} holds no such study (did you mean rank_alpha_lr?); "
        "there is rank_alpha_lr\n"
    )


STANDS_STILL = """
import time
from pathlib import Path
from loraloop.__main__ import main
from loraloop.trainer.monitor import Monitor

def step(monitor, state, control, plain=Monitor.step):
    while list(Path().glob("mlruns/jobs/*/1/dataset.jsonl")):
        Path("stands").touch()
        time.sleep(1)
    plain(monitor, state, control)

Monitor.step = step
main()
"""
"""``loraloop``, but that the first step of the second trial does not end."""


def test_a_killed_sweep_goes_on_without_repeating_or_losing_a_trial(desk):
    """After SIGKILL in a trial, the same command ends with the trials of an uninterrupted sweep and no run RUNNING."""
    command = (*SWEEP, "hydra/launcher=basic", "hydra/sweeper/pruner=none", *SMALL, "hydra.sweeper.n_trials=3")
    process = warm.spawn([sys.executable, "-c", STANDS_STILL, *command], cwd=desk.folder, stdout=subprocess.DEVNULL)
    stands = (desk.folder / "stands").exists
    until(lambda: stands() or process.poll() is not None, "the second trial trains")
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed = study(desk).trials[1]
    assert killed.state.name == "RUNNING"
    desk(*command)
    trials = study(desk).trials
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].params == trials[1].params == killed.params
    whole = [trial.params for trial in trials if trial.state.name == "COMPLETE"]
    desk(*command, "folder=whole", "hydra.sweeper.study_name=whole")
    other = optuna.load_study(study_name="whole", storage=f"sqlite:///{desk.folder}/whole/optuna.db")
    assert [trial.params for trial in other.trials] == whole
    assert [trial.value for trial in other.trials] == pytest.approx([t.value for t in trials if t.value is not None])
    parent, nested = runs(desk)
    assert parent.info.status == "FINISHED"
    assert {number: run.info.status for number, run in nested.items()} == {
        0: "FINISHED", 1: "KILLED", 2: "FINISHED", 3: "FINISHED",
    }  # fmt: skip
    assert len({trial.user_attrs["folder"] for trial in trials}) == 4


SLOW = """
    import time
    from pathlib import Path

    from loraloop.core.part import part
    from loraloop.trainer.sft import Sft


    @part
    class Slow(Sft):
        def train(self, job):
            (job.output / "waiting").touch()
            while not Path("go").exists():
                time.sleep(0.05)
            return super().train(job)
"""


def test_a_sweep_that_sigterm_ends_closes_its_runs_and_goes_on_whatever_became_of_them(desk, monkeypatch):
    """SIGTERM ends the sweep's run and its trials' as KILLED; untracked, or with the run deleted, the study goes on."""
    (desk.folder / "slow.py").write_text(textwrap.dedent(SLOW))
    slow = ("trainer._target_=slow.Slow", "allow_targets=[slow.]")
    command = (
        "-m",
        "hydra/sweeper=optuna",
        "lora.r=int(interval(2,8))",
        "hydra.sweeper.study_name=s",
        *slow,
        *SMALL[:3],
    )
    monkeypatch.setenv("PYTHONPATH", str(desk.folder))
    two = ("hydra/launcher=isolated", "hydra.launcher.processes=2", "hydra.sweeper.n_jobs=2")
    process = desk.start(*command, *two, "hydra.sweeper.n_trials=2")
    waiting = lambda: len(list(desk.folder.glob("mlruns/jobs/*/*/waiting"))) == 2  # noqa: E731
    until(lambda: waiting() or process.poll() is not None, "both trials train")
    process.terminate()
    out = process.communicate()
    assert process.returncode == 143, out
    assert [run.info.status for run in desk.runs()] == ["KILLED"] * 3
    (desk.folder / "go").touch()
    monkeypatch.syspath_prepend(desk.folder)
    assert "is not tracked" in desk(*command, "tracker=none", "hydra.sweeper.n_trials=2").line("winner")
    assert [trial.state.name for trial in study(desk, "s").trials] == ["FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    (parent,) = (run for run in desk.runs() if "study" in run.data.tags)
    desk.client.delete_run(parent.info.run_id)
    seen = desk(*command, "hydra.sweeper.n_trials=3")
    assert f"run {parent.info.run_id} was deleted" in seen.err + seen.out
    (other,) = (run for run in desk.runs() if "study" in run.data.tags)
    assert other.info.status == "FINISHED"
