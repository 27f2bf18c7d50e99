"""Stage ``sweep_report``: what a study found, and its winner before the gate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.stages import versions
from loraloop.workflows.multirun import study_report

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

    A winner that passes is registered as ``candidate``. It is not made champion: the best of many trials on one
    held-out set looks better there than it is.

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
    study_report.print_importances(found)
    study_report.log_plots(job.output, found, tracker)
    winner = trials[0]
    run = winner.user_attrs.get("run")
    if run is None:
        print(f"winner   trial {winner.number} was not tracked: its adapter is in {winner.user_attrs.get('folder')}")
        return
    print(f"winner   trial {winner.number}, run {run}")
    versions.register_if_passed(run, gate, tracker, registry)
