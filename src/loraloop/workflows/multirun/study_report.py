"""What a study found, for people to read."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.workflows.multirun import sweep_run

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial

    from loraloop.protocols import Tracker


def print_states(study: Study) -> None:
    """Print how many trials are in which state, and the directions of the study."""
    counts: dict[str, int] = {}
    for trial in study.get_trials(deepcopy=False):
        counts[trial.state.name.lower()] = counts.get(trial.state.name.lower(), 0) + 1
    directions = ", ".join(direction.name.lower() for direction in study.directions)
    trials = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    console.facts(f"study {study.study_name}", {"trials": trials or "none", "direction": directions})


def print_savings(study: Study) -> None:
    """Print what pruned trials did not train, where some were."""
    from loraloop.sweep import analysis

    if found := analysis.savings(study):
        facts = {
            "not trained": f"{found.share:.0%} of all steps: {found.steps:,} steps, {found.samples:,} samples",
            "training time": f"about {console.duration(found.seconds)}, at the speed of the whole trials",
        }
        console.facts("saved by pruning", facts)


def print_best(trials: list[FrozenTrial], top: int, *, several: bool) -> None:
    """Print the first ``top`` trials; with ``several`` objectives they are those that no other dominates."""
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


def print_importances(study: Study) -> None:
    """Print each parameter's share in what made trials good, where there are enough trials to tell."""
    from loraloop.sweep import analysis

    if weights := analysis.importances(study):
        rows = [[name, f"{value:.2f}"] for name, value in weights.items()]
        console.table("importance (share of what made good trials good)", ["parameter", "share"], rows)


def log_plots(folder: Path, study: Study, tracker: Tracker) -> None:
    """Draw the study into ``folder`` and, where the sweep was tracked, log the plots and importances in its run."""
    from loraloop.sweep import analysis
    from loraloop.sweep.trial import PARENT

    plots = folder / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for name, figure in analysis.figures(study):
        figure.savefig(plots / f"{name}.png", dpi=150, bbox_inches="tight")
    print(f"plots    {plots}")
    if (parent := sweep_run.readable(tracker, study.user_attrs.get(PARENT))) is None:
        return
    with tracker.start(study.study_name, resume=parent) as run:
        run.artifact(plots, "plots")
        run.metrics({f"importance/{name}": value for name, value in analysis.importances(study).items()})
        if saved := analysis.savings(study):
            run.metrics({f"saved/{name}": float(value) for name, value in asdict(saved).items()})
        run.metrics({"best/value": study.best_value} if len(study.directions) == 1 else {})
