"""Stages on the registry: ``register``, ``promote``, ``publish``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import DataError
from loraloop.workflows import promotion, report

if TYPE_CHECKING:
    from loraloop.gate.gate import Gate
    from loraloop.protocols import Publisher, Tracker
    from loraloop.records import Job, Manifest, Score, Version
    from loraloop.registry.mlflow import MlflowRegistry


def register(job: Job, run: str, gate: Gate, tracker: Tracker, registry: MlflowRegistry) -> None:
    """Register the adapter of an earlier run and put it before the gate."""
    report.verdict(promotion.promote_if_passed(registry, gate, *_of_run(run, tracker)))


def register_if_passed(run: str, gate: Gate, tracker: Tracker, registry: MlflowRegistry) -> None:
    """Put the adapter of an earlier run before the gate and register it, as candidate, only if it passes."""
    report.verdict(promotion.register_if_passed(registry, gate, *_of_run(run, tracker)))


def _of_run(run: str, tracker: Tracker) -> tuple[Path, Manifest, tuple[Score, Score], str, promotion.Rescore]:
    """What admission asks of a run: adapter, manifest, scores, id, and how the champion did on the same rows."""
    from loraloop.evaluation import store
    from loraloop.registry import manifest as manifests

    folder = tracker.artifacts(run)
    if not (folder / "adapter").is_dir():
        raise DataError(f"run {run} holds no adapter: it did not finish, or was made by another stage")
    manifest = manifests.read(folder / "adapter")
    scores = (store.read(folder / "evaluation" / "adapter"), store.read(folder / "evaluation" / "base"))

    def rescore(champion: Version) -> Score | None:
        """The champion's own score, where it was measured on this dataset."""
        same = champion.manifest.dataset_fingerprint == manifest.dataset_fingerprint
        if not same or champion.manifest.run_id is None:
            return None
        return store.read(tracker.artifacts(champion.manifest.run_id) / "evaluation" / "adapter")

    return folder / "adapter", manifest, scores, str(tracker.read(run)["id"]), rescore


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
    registry.record("publish", version.number, f"published to {where}", {})
    console.facts(f"{version.name} version {version.number}", {"published to": where})
