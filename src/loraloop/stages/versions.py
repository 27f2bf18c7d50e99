"""Stages on versions: ``promote``, ``publish``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.workflows import export_folder
from loraloop.workflows.publishing import put, told
from loraloop.workflows.retraining.deployment import registry_for

if TYPE_CHECKING:
    from loraloop.protocols import Publisher, Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def promote(
    job: Job,
    version: int,
    alias: str,
    reason: str,
    role: str | None,
    roles: dict[str, str],
    names: dict[str, str],
    registry: MlflowRegistry,
) -> None:
    """Point an alias of a role's model, or of ``registry.name``, at a version by hand; the ledger keeps the reason."""
    made = registry_for(role, roles, names, registry).promote(int(version), alias, reason)
    console.facts(f"{made.name} version {made.number}", {"aliases": ", ".join(made.aliases), "reason": reason})


def publish(
    job: Job,
    adapter: str,
    role: str | None,
    roles: dict[str, str],
    names: dict[str, str],
    publish: Publisher,
    tracker: Tracker,
    registry: MlflowRegistry,
) -> None:
    """Copy a version with its manifest and a model card, which shows its run's scores, to where others find it."""
    registry = registry_for(role, roles, names, registry)
    version = registry.resolve(str(adapter))
    where = put(publish, version, tracker, registry)
    owner = replace(registry, name=version.name) if version.number else registry
    owner.record("publish", version.number, f"published to {where}", {"place": where} | export_folder.sealed(where))
    console.facts(f"{version.name} version {version.number}", {"published to": where, **told(version)})
