"""Stage ``rollout``: a canary that a person chose."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError
from loraloop.workflows.retraining import deployment as deployments
from loraloop.workflows.retraining.rollout import Rollouts

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
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
    from loraloop.loop.store import LoopStore

    with closing(feedback.open()) as store:
        deployment = deployments.line(role, roles, names, registry)
        chosen = deployment.registry.resolve(str(version))
        loop = LoopStore(store.database, policy.name)
        rollouts = Rollouts(policy=policy, loop=loop, store=store, tracker=tracker, alerts=alerts)
        if "@" in str(version) and (why := rollouts.taken_back(deployment, chosen.number)):
            raise ConfigError(
                f"version={version} is version {chosen.number} of {deployment.model}, which was rolled back: {why}; "
                f"version={chosen.number} tries it again all the same"
            )
        rollouts.start(deployment, chosen)
