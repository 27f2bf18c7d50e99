"""Whether a role's retraining may begin now: what its trigger says, and what the policy's limits say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from loraloop.core.durations import span
from loraloop.loop.cycle import RETRAIN, Cycle, Event
from loraloop.workflows.retraining import judged

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.policy import Policy
    from loraloop.workflows.retraining.cycles import Cycles
    from loraloop.workflows.retraining.deployment import Deployment

DAY = timedelta(days=1)
SHORT = "short"
"""The number of a refusal that says that rows were missing: the next cycle waits until there are enough."""


@dataclass(frozen=True, kw_only=True)
class RetrainingTrigger:
    """Begins a cycle when the trigger's rule fires and the policy's limits allow a training.

    Attributes:
        seed: Of the bootstrap of a judge's agreement.
        shortage: Says why a cycle would be refused for want of rows; ``None`` if it would not.
    """

    policy: Policy
    cycles: Cycles
    sessions: Store
    seed: int
    shortage: Callable[[Deployment], str | None]

    def begin(self, deployment: Deployment) -> Cycle | None:
        """The cycle that begins; ``None``: nothing to do, and the reason is reported."""
        champion, state, role = deployment.champion(), self.cycles.state, deployment.role
        now, since = state.now(), self._since(deployment, champion.number)
        look, answered = self.policy.trigger.reads(since, now), deployment.name_of(champion.number)
        outcomes = self.sessions.outcomes(
            answered=answered, since=since, rated_since=look.rated_since, limit=look.latest
        )
        counted = judged.count(
            self.policy, self.sessions, deployment.owns, answered, look, since, outcomes, self.seed
        )  # fmt: skip
        self.cycles.warn(role, counted.outcomes)
        verdict = self.policy.trigger.decide(counted.outcomes, since, now)
        reason = f"{verdict.reason}{counted.said}"
        if not verdict.passed:
            self.cycles.say(role, f"nothing to do: {reason}")
            return None
        if held := self._held_back(deployment, now):
            self.cycles.say(role, f"nothing to do: {held}, although {reason}")
            return None
        numbers = {**verdict.numbers, **counted.numbers, "since": since}
        event = Event(name="trigger", version=champion.number, reason=reason, numbers=numbers)
        cycle = state.begin(role, deployment.model, champion.number, self.policy.name, event)
        self.cycles.say(role, f"trigger: {reason}")
        return cycle

    def _since(self, deployment: Deployment, champion: int) -> str:
        """Start of the ratings that count: since the version is the champion, and after the last training on them."""
        cycles = self.cycles.state.cycles(deployment.role)
        trained = [each for each in cycles if each.attempts and each.state != "failed" and each.champion == champion]
        return max([deployment.active_since(champion), *(each.began for each in trained)])

    def _held_back(self, deployment: Deployment, now: str) -> str | None:
        """Why no retraining may begin now; ``None`` if one may.

        After a cycle that was refused because rows were missing, the next one waits until there are enough, however
        long that takes. After one that was refused before its training for another reason, it waits for the cooldown.
        """
        moment, cooldown = datetime.fromisoformat(now), span(self.policy.cooldown)
        cycles = [each for each in self.cycles.state.cycles(deployment.role) if each.kind == RETRAIN]
        ages = [(each, moment - datetime.fromisoformat(each.began)) for each in cycles]
        past = [(each, age) for each, age in ages if age >= timedelta(0)]  # a clock may once have been ahead
        trained = [(each, age) for each, age in past if each.attempts]
        if trained and trained[-1][1] < cooldown:
            return f"the last retraining began at {trained[-1][0].began:.16} (policy.cooldown={self.policy.cooldown})"
        today = sum(age < DAY for _, age in trained)
        if today >= self.policy.daily_cap:
            return f"{today} retrainings began in 24 hours (policy.daily_cap={self.policy.daily_cap})"
        return self._refused_before(deployment, *past[-1]) if past else None

    def _refused_before(self, deployment: Deployment, last: Cycle, age: timedelta) -> str | None:
        if last.attempts or last.state != "refused":
            return None
        if self.cycles.state.numbers(last.id, "refuse").get(SHORT):
            return self.shortage(deployment)
        if age < span(self.policy.cooldown):
            return f"the last cycle was refused at {last.changed:.16} (policy.cooldown={self.policy.cooldown})"
        return None
