"""Stage ``rollout``: a version that a person chose answers a share of the conversations."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError
from loraloop.workflows.retraining.cycles import open_cycles
from loraloop.workflows.retraining.deployment import deployment_of
from loraloop.workflows.retraining.rollback import rolled_back
from loraloop.workflows.retraining.rollout import StagedRollout

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
    """Begin the rollout of a version that a person chose; every tick judges it from then on.

    Raises:
        ConfigError: The role is unknown or has no champion, the version is the champion, or an alias leads to a version
            that was rolled back.
        ModelError: The version is of another base than the champion.
        StoreError: The role has an open cycle.
    """
    with closing(feedback.open()) as store:
        deployment = deployment_of(role, roles, names, registry)
        chosen = deployment.registry.resolve(str(version))
        if "@" in str(version) and (why := rolled_back(deployment, chosen.number)):
            raise ConfigError(
                f"version={version} is version {chosen.number} of {deployment.model}, which was rolled back: {why}; "
                f"to try it again, write version={chosen.number}"
            )
        cycles = open_cycles(policy, store, tracker, alerts)
        StagedRollout(policy=policy, cycles=cycles, sessions=store).choose(deployment, chosen)
