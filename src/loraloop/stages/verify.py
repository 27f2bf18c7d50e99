"""Stage ``verify``: an export answers, in its real runtime, as its adapter did when it was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.workflows import export_folder, parity, parity_report
from loraloop.workflows.retraining.deployment import registry_for
from loraloop.workflows.version_base import VersionBase

if TYPE_CHECKING:
    from loraloop.protocols import Runtime, Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def verify(
    job: Job,
    adapter: str,
    path: str | None,
    rows: int,
    min_agreement: float | None,
    role: str | None,
    roles: dict[str, str],
    names: dict[str, str],
    runtime: Runtime,
    tracker: Tracker,
    registry: MlflowRegistry,
) -> float:
    """Compare an export's greedy answers with those that are kept with the adapter's run.

    Returns:
        The share of equal answers.

    Raises:
        ArtefactError: The export was altered, or fewer answers than ``min_agreement`` are equal.
    """
    registry = registry_for(role, roles, names, registry)
    version = registry.resolve(str(adapter))
    folder = export_folder.find(version, Path(path) if path else None, runtime.FORMS, registry)
    export = export_folder.read(folder)
    export_folder.require_unaltered(version, folder, export)
    known = parity.recorded(version, int(rows), tracker)
    made = parity.measure(version, folder, export, runtime, known, VersionBase(version), min_agreement)
    parity.keep(made, version, folder, registry, tracker)
    parity_report.report(made, version, folder)
    parity_report.require(made, folder, "min_agreement")
    return made.agreement
