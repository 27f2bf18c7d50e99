"""Stage ``multirun_report``: the runs of a multirun, and the best of them before the gate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.errors import DataError
from loraloop.workflows import promotion, report
from loraloop.workflows.multirun import results

if TYPE_CHECKING:
    from loraloop.gate.gate import Gate
    from loraloop.protocols import Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.workflows.multirun.results import Result


def multirun_report(job: Job, multirun: str, gate: Gate, tracker: Tracker, registry: MlflowRegistry) -> None:
    """Print the runs of a multirun that ended, the best first, and register the best as candidate.

    It is not made champion: a comparison changes nothing that is served. Runs of several registered models have a best
    one each.

    Raises:
        DataError: No run of that folder has ended.
    """
    found = results.read(Path(multirun))
    if not found:
        raise DataError(f"multirun={multirun}: no run in this folder has ended; it is the folder of the jobs' folders")
    for model in dict.fromkeys(result.model for result in found.values()):
        of_model = {folder: result for folder, result in found.items() if result.model == model}
        _best(of_model, gate, tracker, replace(registry, name=model))


def _best(found: dict[Path, Result], gate: Gate, tracker: Tracker, registry: MlflowRegistry) -> None:
    order = results.ranked(found)
    report.runs([(folder.name, found[folder]) for folder in order])
    candidates = [results.candidate(folder, found[folder], tracker) for folder in order]
    if len({result.objective for result in found.values()}) > 1 or not results.comparable(candidates):
        print("They were measured on different rows, or by different objectives: none is the best, none is registered.")
        print("To register one of them and put it before the gate: loraloop stage=register run=RUN")
        return
    made = promotion.register_only(registry, gate, candidates[0])
    promotion.note(made, candidates[0].run, registry, tracker)
    report.verdict(made, promotion.promote_command(registry, made.version) if made.version else None)
