"""Stages ``rollout`` and ``rollback``: the loop's decisions, made by a person."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError
from loraloop.workflows.retraining import deployment as deployments
from loraloop.workflows.retraining.rollout import Rollouts

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.feedback.store import Store
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts, Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


def rollout(
    job: Job,
    role: str,
    version: str,
    policy: Policy,
    roles: dict[str, str],
    names: dict[str, str],
    tracker: Tracker,
    registry: MlflowRegistry,
    feedback: Feedback,
    alerts: Alerts,
) -> None:
    """Give a share of a role's conversations to a version that a person chose; ticks judge it from then on.

    Raises:
        ConfigError: The role does not exist or has no champion, the version is the champion already, or an alias points
            at a version that was rolled back.
        ModelError: The version is of another base than the champion.
        StoreError: The role has a cycle that is not over.
    """
    with closing(feedback.open()) as store:
        deployment = deployments.line(role, roles, names, registry)
        chosen = deployment.registry.resolve(str(version))
        rollouts = _rollouts(policy, store, tracker, alerts)
        if "@" in str(version) and (why := rollouts.taken_back(deployment, chosen.number)):
            raise ConfigError(
                f"version={version} is version {chosen.number} of {deployment.model}, which was rolled back: {why}; "
                f"version={chosen.number} tries it again all the same"
            )
        rollouts.start(deployment, chosen)


def rollback(
    job: Job,
    role: str,
    reason: str,
    version: int | None,
    policy: Policy,
    roles: dict[str, str],
    names: dict[str, str],
    tracker: Tracker,
    registry: MlflowRegistry,
    feedback: Feedback,
    alerts: Alerts,
) -> None:
    """End a role's running rollout at once; without one, make the previous champion the champion again.

    A rollout is also ended while registry and tracker are away, and when the role was removed from ``server.roles``.

    Raises:
        ConfigError: The role does not exist, or there is nothing to go back to.
        StoreError: It could not be carried out.
    """
    with closing(feedback.open()) as store:
        rollouts = _rollouts(policy, store, tracker, alerts)
        tried = rollouts.loop.open(role)
        if tried is not None and tried.rollout:
            deployment = deployments.Deployment(role, tried.model, tried.model, replace(registry, name=tried.model))
        else:
            deployment = deployments.line(role, roles, names, registry)
        rollouts.take_back(deployment, reason, version)


def _rollouts(policy: Policy, store: Store, tracker: Tracker, alerts: Alerts) -> Rollouts:
    from loraloop.loop.store import LoopStore

    return Rollouts(
        policy=policy, loop=LoopStore(store.database, policy.name), store=store, tracker=tracker, alerts=alerts
    )
