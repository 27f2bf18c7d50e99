"""Stages on the registry: ``register``, ``promote``, ``publish``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ConfigError
from loraloop.workflows import promotion, registration, report

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.gate.gate import Gate
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Publisher, Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def register(
    job: Job,
    run: str | None,
    adapter: str | None,
    gate: Gate,
    dataset: DatasetBuilder,
    model: CausalLM,
    tracker: Tracker,
    registry: MlflowRegistry,
) -> None:
    """Register the adapter of an earlier run and put it before the gate, or that of a folder as candidate.

    Raises:
        ConfigError: Neither a run nor a folder is given, or both.
    """
    if (run is None) == (adapter is None):
        given = "both run and adapter are given" if run else "nothing to register is given"
        raise ConfigError(f"{given}: write run=RUN for an earlier run, or adapter=FOLDER for an adapter of PEFT's")
    if run is not None:
        report.verdict(promotion.promote_if_passed(registry, gate, promotion.of_run(str(run), tracker)))
        return
    registration.report(
        registration.FolderRegistration(
            model=model, template=dataset.template, tracker=tracker, registry=registry, output=job.output
        ).register(Path(str(adapter)))
    )


def promote(job: Job, version: int, alias: str, reason: str, registry: MlflowRegistry) -> None:
    """Point an alias at a version by hand; the ledger keeps the reason."""
    made = registry.promote(int(version), alias, reason)
    console.facts(f"{made.name} version {made.number}", {"aliases": ", ".join(made.aliases), "reason": reason})


def publish(job: Job, adapter: str, publish: Publisher, tracker: Tracker, registry: MlflowRegistry) -> None:
    """Copy a version with its manifest and a model card, which shows its run's scores, to where others find it."""
    version = registry.resolve(str(adapter))
    run = version.manifest.run_id
    metrics = tracker.read(run)["metrics"] if run else {}
    final = {name.removeprefix("final/"): value for name, value in metrics.items() if name.startswith("final/")}
    where = publish.publish(version, {name: value for name, value in final.items() if "/" not in name})
    owner = replace(registry, name=version.name) if version.number else registry
    owner.record("publish", version.number, f"published to {where}", {})
    console.facts(f"{version.name} version {version.number}", {"published to": where})
