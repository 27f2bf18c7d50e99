"""Stage ``register``: the adapter of an earlier run, or of a folder, becomes a version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError
from loraloop.workflows import promotion, registration, report
from loraloop.workflows.retraining.deployment import registry_for

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.gate.gate import Gate
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def register(
    job: Job,
    run: str | None,
    adapter: str | None,
    role: str | None,
    roles: dict[str, str],
    names: dict[str, str],
    gate: Gate,
    dataset: DatasetBuilder,
    model: CausalLM,
    tracker: Tracker,
    registry: MlflowRegistry,
) -> None:
    """Register an adapter under a role's model or ``registry.name``: a run's goes before the gate, a folder's does not.

    Raises:
        ConfigError: Neither a run nor a folder is given, or both.
    """
    if (run is None) == (adapter is None):
        given = "both run and adapter are given" if run else "nothing to register is given"
        raise ConfigError(f"{given}: write run=RUN for an earlier run, or adapter=FOLDER for an adapter of PEFT's")
    registry = registry_for(role, roles, names, registry)
    if run is None:
        folder = registration.FolderRegistration(
            model=model, template=dataset.template, tracker=tracker, registry=registry, output=job.output
        )
        registration.report(folder.register(Path(str(adapter))))
        return
    candidate = promotion.of_run(str(run), tracker)
    put = promotion.register_only if job.multirun else promotion.promote_if_passed
    made = put(registry, gate, candidate)
    promotion.note(made, candidate.run, registry, tracker)
    report.verdict(made)
