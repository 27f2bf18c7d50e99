"""Stage ``sweep_report``: what a study found, and its winner before the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.stages import versions

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from loraloop.gate.gate import Gate
    from loraloop.protocols import Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def sweep_report(
    job: Job,
    study: str,
    storage: str | None,
    folder: str,
    top: int,
    gate: Gate,
    tracker: Tracker,
    registry: MlflowRegistry,
) -> None:
    """Print the best trials and importances, keep the plots with the sweep's run, and put the winner before the gate.

    A winner that passes is registered as ``candidate``. It is not made champion: the best of many trials on one
    held-out set looks better there than it is.

    Raises:
        DataError: There is no such study.
    """
    from loraloop.sweep import analysis
    from loraloop.sweep.storage import address

    found = analysis.load(study, address(storage, folder))
    trials = analysis.ranked(found)
    _states(found)
    if not trials:
        print("no trial has completed, so there is no winner")
        return
    _best(trials, int(top), several=len(found.directions) > 1)
    weights = analysis.importances(found)
    if weights:
        rows = [[name, f"{value:.2f}"] for name, value in weights.items()]
        console.table("importance (share of what made good trials good)", ["parameter", "share"], rows)
    _keep(job, found, tracker)
    _winner(trials[0], gate, tracker, registry)


def _states(study: Study) -> None:
    counts: dict[str, int] = {}
    for trial in study.get_trials(deepcopy=False):
        counts[trial.state.name.lower()] = counts.get(trial.state.name.lower(), 0) + 1
    directions = ", ".join(direction.name.lower() for direction in study.directions)
    trials = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    console.facts(f"study {study.study_name}", {"trials": trials or "none", "direction": directions})


def _best(trials: list[FrozenTrial], top: int, *, several: bool) -> None:
    keys = list(dict.fromkeys(key for trial in trials for key in trial.params))
    rows = []
    for trial in trials[:top]:
        values = ", ".join(f"{value:.4f}" for value in trial.values)
        seconds = console.duration(trial.duration.total_seconds()) if trial.duration else "-"
        cells = [_cell(trial.params.get(key, "-")) for key in keys]
        rows.append([str(trial.number), values, *cells, seconds])
    title = "trials that no other dominates" if several else "best trials"
    console.table(title, ["trial", "value", *keys, "took"], rows)


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _keep(job: Job, study: Study, tracker: Tracker) -> None:
    """Plots into the job's folder and, where the sweep was tracked, into its run."""
    from loraloop.sweep import analysis
    from loraloop.sweep.trial import PARENT

    plots = job.output / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name, figure in analysis.figures(study):
        figure.savefig(plots / f"{name}.png", dpi=150, bbox_inches="tight")
    print(f"plots    {plots}")
    if (parent := study.user_attrs.get(PARENT)) is None:
        return
    with tracker.start(study.study_name, resume=parent) as run:
        run.artifact(plots, "plots")
        run.metrics({f"importance/{name}": value for name, value in analysis.importances(study).items()})
        run.metrics({"best/value": study.best_value} if len(study.directions) == 1 else {})


def _winner(trial: FrozenTrial, gate: Gate, tracker: Tracker, registry: MlflowRegistry) -> None:
    run = trial.user_attrs.get("run")
    if run is None:
        print(f"winner   trial {trial.number} was not tracked: its adapter is in {trial.user_attrs.get('folder')}")
        return
    print(f"winner   trial {trial.number}, run {run}")
    versions.register_if_passed(run, gate, tracker, registry)
