"""Staged rollouts: a version answers a share of the conversations beside the champion until a rule decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraloop.core.transitions import CANARY
from loraloop.errors import ArtefactError, ConfigError, UnknownVersionError
from loraloop.loop.cycle import Cycle, Event
from loraloop.workflows.retraining.outbox import FROM

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.policy import Policy
    from loraloop.records import CanaryVerdict, Outcome, Rollout, Version
    from loraloop.workflows.retraining.cycles import Cycles
    from loraloop.workflows.retraining.deployment import Deployment


@dataclass(frozen=True, kw_only=True)
class StagedRollout:
    """Begins rollouts, judges them, and promotes the candidates that win."""

    policy: Policy
    cycles: Cycles
    sessions: Store

    def choose(self, deployment: Deployment, version: Version) -> Cycle:
        """Begin the rollout of a version that a person chose; every tick judges it from then on.

        Raises:
            ConfigError: The version is the champion already.
            ModelError: It was trained on another base than the champion.
            MovedError: The role has an open cycle, or its model a running rollout.
        """
        from loraloop.registry import manifest as manifests

        champion, model = deployment.champion(), deployment.model
        if version.number == champion.number:
            raise ConfigError(f"version={version.number} of {model} is the champion already: choose another version")
        manifests.verify_adapter(champion.manifest.base, version.manifest)
        share, event = self._beginning(champion.number, version.number)
        cycle = self.cycles.state.choose(
            deployment.role, model, champion.number, version.number, self.policy.name, share, event
        )
        self.cycles.say(deployment.role, f"rollout: {event.reason}")
        self.cycles.outbox(deployment).publish()
        return cycle

    def begin(self, deployment: Deployment, cycle: Cycle) -> Cycle:
        """Begin the rollout of a registered candidate."""
        share, event = self._beginning(cycle.champion, int(cycle.candidate or 0))
        begun = self.cycles.state.roll_out(cycle, share, event)
        self.cycles.say(deployment.role, f"rollout: {event.reason}")
        return begun

    def judge(self, deployment: Deployment, cycle: Cycle, *, may_promote: bool = True) -> Cycle:
        """Judge a running rollout and do what the canary's rule says.

        Args:
            deployment: The role's.
            cycle: In the state ``canary``.
            may_promote: ``False``: a candidate that wins has to wait, as when the ledger is damaged.
        """
        rollout = self.cycles.state.rollout(str(cycle.rollout))
        outcomes = self.sessions.outcomes(rollout=rollout.id)
        verdict = self.policy.canary.decide(rollout, outcomes, self.cycles.state.now())
        arms = _arms(deployment, rollout, outcomes)
        kept = {"action": verdict.action, "reason": verdict.reason, "arms": arms}
        self.cycles.state.keep_verdict(rollout.id, kept)
        numbers = {**verdict.numbers, "arms": arms}
        waits = verdict.action == "promote" and not may_promote
        if waits or verdict.action == "wait":
            what = "is won, but the loop cannot go on" if waits else "goes on"
            self.cycles.say(deployment.role, f"the rollout of version {cycle.candidate} {what}: {verdict.reason}")
            return cycle
        if verdict.action == "promote":
            return self._promote(deployment, cycle, verdict, numbers)
        return self.cycles.end(cycle, verdict.action, verdict.reason, numbers)

    def finish(self, deployment: Deployment, cycle: Cycle) -> Cycle:
        """End a cycle whose promotion the ledger has entered or refused."""
        champion = deployment.champion().number
        if champion == cycle.champion:
            reason = "it won, but its promotion could not be carried out: see the refuse entry before this one"
            return self.cycles.end(cycle, "rollback", reason)
        if champion != cycle.candidate:
            reason = f"the champion was moved by hand to {champion} before the promotion"
            return self.cycles.end(cycle, "stop", reason)
        promoted = self.cycles.state.advance(cycle)
        self.cycles.say(deployment.role, f"version {cycle.candidate} is the champion")
        return promoted

    def _beginning(self, stable: int, canary: int) -> tuple[float, Event]:
        share = self.policy.canary.share
        numbers = {"share": share, "stable": stable, "canary": canary}
        reason = f"version {canary} answers {share:.0%} of the conversations, version {stable} the others"
        return share, Event(name="rollout", version=canary, reason=reason, numbers=numbers, alias=CANARY)

    def _promote(
        self, deployment: Deployment, cycle: Cycle, verdict: CanaryVerdict, numbers: Mapping[str, Any]
    ) -> Cycle:
        try:
            deployment.registry.resolve(str(cycle.candidate))
        except (ArtefactError, UnknownVersionError) as error:
            return self.cycles.end(cycle, "rollback", f"it won, but it cannot be promoted: {error}", numbers)
        event = Event(
            name="promote",
            version=cycle.candidate,
            reason=verdict.reason,
            numbers={**numbers, FROM: cycle.champion},
            alias=deployment.registry.serve_alias,
        )
        return self.cycles.advance(cycle, event)


def _arms(deployment: Deployment, rollout: Rollout, outcomes: Sequence[Outcome]) -> dict[str, dict[str, Any]]:
    """Figures of both versions, for the metrics."""
    names = {
        "stable": deployment.name_of(rollout.stable),
        "canary": deployment.name_of(rollout.canary),
    }
    return {arm: _figures([each for each in outcomes if each.answered == name]) for arm, name in names.items()}


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    ended = [each.success for each in outcomes if each.success is not None]
    stars = [each.stars for each in outcomes if each.stars is not None]
    return {
        "sessions": len(outcomes),
        "success": sum(ended) / len(ended) if ended else None,
        "stars": sum(stars) / len(stars) if stars else None,
    }
