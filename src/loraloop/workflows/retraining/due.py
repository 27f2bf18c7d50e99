"""Whether a role's retraining may begin now: what its trigger says, and what the policy's limits say."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from loraloop.core.durations import span
from loraloop.loop.cycle import RETRAIN, Cycle, Event

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.policy import Policy
    from loraloop.workflows.retraining.cycles import Cycles
    from loraloop.workflows.retraining.deployment import Deployment
    from loraloop.workflows.retraining.training_set import TrainingSetBuilder

DAY = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class RetrainingTrigger:
    """Begins a cycle when the trigger's rule fires and the policy's limits allow a training."""

    policy: Policy
    cycles: Cycles
    sessions: Store
    training_sets: TrainingSetBuilder

    def begin(self, deployment: Deployment) -> Cycle | None:
        """The cycle that begins; ``None``: nothing to do, and the reason is reported."""
        champion, state, role = deployment.champion(), self.cycles.state, deployment.role
        now, since = state.now(), self._since(deployment, champion.number)
        outcomes = self.sessions.outcomes(answered=deployment.name_of(champion.number), since=since)
        verdict = self.policy.trigger.decide(outcomes, since, now)
        if not verdict.passed:
            self.cycles.say(role, f"nothing to do: {verdict.reason}")
            return None
        if held := self._held_back(deployment, now):
            self.cycles.say(role, f"nothing to do: {held}, although {verdict.reason}")
            return None
        numbers = {**verdict.numbers, "since": since}
        event = Event(name="trigger", version=champion.number, reason=verdict.reason, numbers=numbers)
        cycle = state.begin(role, deployment.model, champion.number, self.policy.name, event)
        self.cycles.say(role, f"trigger: {verdict.reason}")
        return cycle

    def _since(self, deployment: Deployment, champion: int) -> str:
        """Start of the ratings that count: since the version is the champion, and after the last training on them."""
        cycles = self.cycles.state.cycles(deployment.role)
        trained = [each for each in cycles if each.attempts and each.state != "failed" and each.champion == champion]
        return max([deployment.active_since(champion), *(each.began for each in trained)])

    def _held_back(self, deployment: Deployment, now: str) -> str | None:
        """Why no retraining may begin now; ``None`` if one may.

        A cycle that was refused before its training holds back the next one only while corrected sessions are short.
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
        if past and past[-1][1] < cooldown and not past[-1][0].attempts:
            return self.training_sets.shortage(deployment)
        return None
