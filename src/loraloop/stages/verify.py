"""Stage ``verify``: an export answers, in its real runtime, as its adapter did when it was measured."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.errors import ConfigError
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
    count = _number("rows", rows, 1, math.inf, int, "a whole number from 1")
    least = None
    if min_agreement is not None:
        least = _number("min_agreement", min_agreement, 0, 1, float, "a share from 0 to 1")
    registry = registry_for(role, roles, names, registry)
    version = registry.resolve(str(adapter))
    folder = export_folder.find(version, Path(path) if path else None, runtime.FORMS, registry)
    export = export_folder.read(folder)
    speaks = export_folder.require_unaltered(version, folder, export, registry)
    known = parity.recorded(version, count, tracker)
    made = parity.measure(version, folder, export, runtime, known, VersionBase(version), least)
    parity.keep(made, version, folder, registry, tracker, speaks)
    parity_report.report(made, version, folder)
    parity_report.require(made, folder, "min_agreement")
    return made.agreement


def _number(key: str, value: Any, least: float, most: float, kind: type[float], rule: str) -> Any:
    try:
        made = kind(value)
    except (ValueError, TypeError, OverflowError):
        made = math.nan
    if not least <= made <= most or made != float(value):
        raise ConfigError(f"{key}={value} must be {rule}")
    return made
