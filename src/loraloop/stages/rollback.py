"""Stage ``rollback``: the previous version, at once."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from loraloop.workflows.retraining.deployment import Deployment, line
from loraloop.workflows.retraining.rollout import Rollouts

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts, Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Ends a role's running rollout; without one, makes the previous champion the champion again.

    Attributes:
        CHECKED: The parts that must be reachable: the stage does what it can without the others.
        reason: Goes into the ledger.
        version: The only version that may be rolled back; ``None`` for the one that is tried or active.
        roles: What answers for each agent role.
        names: Short names of registered models.
    """

    CHECKED: ClassVar[frozenset[str]] = frozenset({"feedback"})

    job: Job
    role: str
    reason: str
    version: int | None
    policy: Policy
    roles: dict[str, str]
    names: dict[str, str]
    tracker: Tracker
    registry: MlflowRegistry
    feedback: Feedback
    alerts: Alerts

    def run(self) -> None:
        """Roll back, also while registry and tracker are away, and when the role has left ``server.roles``.

        Raises:
            ConfigError: The role does not exist, or there is nothing to go back to.
            StoreError: It could not be carried out.
        """
        from loraloop.loop.store import LoopStore

        with closing(self.feedback.open()) as store:
            loop = LoopStore(store.database, self.policy.name)
            tried = loop.open(self.role)
            if tried is not None and tried.rollout:
                registry = replace(self.registry, name=tried.model)
                deployment = Deployment(self.role, tried.model, tried.model, registry)
            else:
                deployment = line(self.role, self.roles, self.names, self.registry)
            rollouts = Rollouts(policy=self.policy, loop=loop, store=store, tracker=self.tracker, alerts=self.alerts)
            rollouts.take_back(deployment, self.reason, self.version)
