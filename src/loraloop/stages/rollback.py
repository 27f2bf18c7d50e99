"""Stage ``rollback``: back to the version before."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from loraloop.workflows.retraining import rollback
from loraloop.workflows.retraining.cycles import open_cycles
from loraloop.workflows.retraining.deployment import Deployment, deployment_of

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts, Tracker
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """Ends a role's running rollout at once; where none runs, makes the version before the champion again.

    Attributes:
        CHECKED: The parts that must be reachable; registry and tracker may be away.
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
        """Roll back, also while registry and tracker cannot be reached, and when ``server.roles`` has lost the role.

        Raises:
            ConfigError: The role is unknown, or there is no version to go back to.
            StoreError: It could not be carried out.
        """
        with closing(self.feedback.open()) as store:
            cycles = open_cycles(self.policy, store, self.tracker, self.alerts)
            cycle = cycles.state.open(self.role)
            if cycle is not None and cycle.rollout:
                registry = replace(self.registry, name=cycle.model)
                deployment = Deployment(self.role, cycle.model, cycle.model, registry)
            else:
                deployment = deployment_of(self.role, self.roles, self.names, self.registry)
            rollback.Rollback(policy=self.policy, cycles=cycles).run(deployment, self.reason, self.version)
