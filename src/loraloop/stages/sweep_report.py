"""Stage ``sweep_report``: what a study found, and its winner before the gate."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.workflows import promotion, report
from loraloop.workflows.multirun import results, study_report, sweep_run

if TYPE_CHECKING:
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
    """Print the best trials and importances, log the plots in the sweep's run, and put the winner before the gate.

    The winner is registered as ``candidate``, and the command that promotes it is printed. It is not made champion: the
    best of many trials on one held-out set looks better there than it is.

    Raises:
        DataError: There is no such study.
    """
    from loraloop.sweep import analysis
    from loraloop.sweep.storage import address

    found = analysis.load(study, address(storage, folder))
    trials = analysis.ranked(found)
    study_report.print_states(found)
    if not trials:
        print("no trial has completed, so there is no winner")
        return
    study_report.print_best(trials, int(top), several=len(found.directions) > 1)
    study_report.print_savings(found)
    study_report.print_importances(found)
    study_report.log_plots(job.output, found, tracker)
    winner = trials[0]
    run, kept = sweep_run.readable(tracker, winner.user_attrs.get("run")), Path(winner.user_attrs.get("folder", ""))
    known = f", run {run}" if run else f" is not tracked: its adapter is in {kept}"
    print(f"winner   trial {winner.number}{known}")
    if run is None and (registry.uri or not results.whole(kept)):
        print("not registered: the adapter is not on this machine, or the registry keeps adapters with their runs")
        return
    candidate = promotion.of_run(run, tracker) if run else promotion.of_folder(kept, None, tracker)
    made = promotion.register_only(registry, gate, candidate)
    promotion.note(made, run, registry, tracker)
    report.verdict(made, promotion.promote_command(registry, made.version) if made.version else None)
