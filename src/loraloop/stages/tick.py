"""Stage ``tick``: one step of the loop."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraloop.workflows import erasure
from loraloop.workflows.parts import ExperimentParts
from loraloop.workflows.retraining import recipes
from loraloop.workflows.retraining.machine import retraining_loop
from loraloop.workflows.retraining.training import Retraining
from loraloop.workflows.traces import take_ratings

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts
    from loraloop.tracing.settings import Tracing


@dataclass(frozen=True, kw_only=True)
class Tick(ExperimentParts):
    """Takes the cycle of every role of the policy as far as it can go now; the next tick goes on from there.

    Before that it takes over what people rated in MLflow, where ``tracing.mlflow`` sends answers there.

    Attributes:
        role: The only role to look at; ``None`` for those of the policy.
        roles: What answers for each agent role.
        names: Short names of registered models.
    """

    policy: Policy
    role: str | None
    roles: dict[str, str]
    names: dict[str, str]
    feedback: Feedback
    alerts: Alerts
    tracing: Tracing

    @staticmethod
    def misfits(parts: Mapping[str, Any]) -> list[str]:
        """What does not fit between the parts, though each is sound alone."""
        return [*ExperimentParts.misfits(parts), *recipes.misfits(parts["policy"], parts["trainer"])]

    def run(self) -> None:
        """Take the steps that are due, after sessions older than ``feedback.keep_days`` are erased.

        Raises:
            LoraloopError: A role is unknown or has no champion, or its champion, ledger or golden set is damaged. For
                such a role only a running rollout was judged; the other roles went on.
        """
        with closing(self.feedback.open()) as store:
            erasure.expire(self.feedback, store, self.ocr)
            take_ratings(self.tracing, store)
            retraining = Retraining(parts=self, max_forgetting=self.policy.max_forgetting)
            loop = retraining_loop(self.policy, retraining, store, self.registry, self.alerts)
            loop.tick(self.roles, self.names, self.registry, self.role)
