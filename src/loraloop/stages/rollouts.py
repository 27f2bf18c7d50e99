"""Rollouts: a new version beside the one that reigns, until it wins, loses or ends; by rule or by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from loraloop.errors import ConfigError, StoreError
from loraloop.loop.cycle import Cycle, Decided
from loraloop.loop.telling import FROM, Telling

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.loop.store import LoopStore
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts, Tracker
    from loraloop.records import Outcome, Ruling, Version
    from loraloop.stages.line import Line

Say = Callable[[str, str], None]
"""Told a role and a sentence."""
PATIENCE = 30
"""Seconds that a rollback by hand waits for a promotion that has begun."""


def say(role: str, sentence: str) -> None:
    """Print it."""
    print(f"{role}: {sentence}", flush=True)


@dataclass(kw_only=True)
class Rollouts:
    """Begins, judges and ends rollouts.

    Attributes:
        loop: The loop's state.
        store: The sessions.
        say: Told what was decided, and why.
    """

    policy: Policy
    loop: LoopStore
    store: Store
    tracker: Tracker
    alerts: Alerts
    say: Say = field(default=say)

    def telling(self, line: Line) -> Telling:
        """What takes this line's decisions to ledger, tracker and people."""
        return Telling(self.loop, line.model, line.registry, self.tracker, self.alerts)

    def start(self, line: Line, version: Version) -> Cycle:
        """Begin a rollout of a version that a person chose; it goes on with every tick.

        Raises:
            ConfigError: It reigns already.
            ModelError: It was trained on another base than the version that reigns.
            MovedError: The role has an open cycle, or its model a running rollout.
        """
        from loraloop.registry import manifest as manifests

        champion = line.champion()
        if version.number == champion.number:
            raise ConfigError(f"version={version.number} of {line.model} is the champion already: choose another")
        manifests.verify_adapter(champion.manifest.base, version.manifest)
        cycle = self.loop.choose(line.role, line.model, champion.number, version.number, self.policy.name)
        cycle = self._registered(line, cycle)
        self.telling(line).tell()
        return cycle

    def take_back(self, line: Line, reason: str) -> None:
        """At once: end the rollout that runs, or give the alias back to the version that reigned before.

        Raises:
            ConfigError: Neither is there.
            StoreError: A tick is promoting, and does not come to its end.
        """
        telling = self.telling(line)
        cycle = self.loop.open(line.role)
        if cycle is not None and cycle.state == "promoting":
            self._let_promote(line, telling)
            cycle = None
        if cycle is not None and cycle.rollout:
            sentence = f"the rollout of version {cycle.candidate} was ended: {reason}"
            self._end(line, cycle, "rolled_back", "rollback", sentence)  # from here on no session goes to the canary
            telling.tell()
            return
        telling.tell()
        before, reigning = line.before(), line.reigning()
        if before is None:
            raise ConfigError(
                f"{line.role} has nothing to go back to: no rollout runs, and no version of {line.model} reigned "
                f"before version {reigning}; loraloop stage=promote registry.name={line.model} version=N takes any"
            )
        line.registry.resolve(str(before))
        sentence = f"version {before} reigns again instead of {reigning}: {reason}"
        alias, numbers = line.registry.serve_alias, {FROM: reigning}
        decided = Decided(event="rollback", version=before, reason=sentence, numbers=numbers, alias=alias, alert=True)
        self.loop.decide(line.role, line.model, self.policy.name, decided)
        telling.tell()
        self.say(line.role, f"rollback: {sentence}")

    def _let_promote(self, line: Line, telling: Telling) -> None:
        with self.loop.claim(f"tick {line.role}", PATIENCE) as free:
            if not free:
                raise StoreError(f"a tick is promoting for {line.role} and not done after {PATIENCE} s: repeat this")
            telling.tell()
            cycle = self.loop.open(line.role)
            if cycle is not None and cycle.state == "promoting":
                self._promoting(line, cycle)

    def _registered(self, line: Line, cycle: Cycle) -> Cycle:
        share = self.policy.canary.share
        numbers = {"share": share, "stable": cycle.champion, "canary": cycle.candidate}
        reason = (
            f"version {cycle.candidate} answers {share:.0%} of the conversations, version {cycle.champion} the others"
        )
        decided = Decided(event="rollout", version=cycle.candidate, reason=reason, numbers=numbers, alias="canary")
        made = self.loop.roll_out(cycle, share, decided)
        self.say(line.role, f"rollout: {reason}")
        return made

    def _canary(self, line: Line, cycle: Cycle) -> Cycle:
        rollout = self.loop.rollout(str(cycle.rollout))
        outcomes = self.store.outcomes(rollout=rollout.id)
        ruling = self.policy.canary.decide(rollout, outcomes, self.loop.now())
        arms = {
            "stable": _figures([each for each in outcomes if each.answered == line.session(rollout.stable)]),
            "canary": _figures([each for each in outcomes if each.answered == line.session(rollout.canary)]),
        }
        self.loop.judge(rollout.id, {"action": ruling.action, "reason": ruling.reason, "arms": arms})
        numbers = {**ruling.numbers, "arms": arms}
        if ruling.action == "wait":
            self.say(line.role, f"the rollout of version {cycle.candidate} goes on: {ruling.reason}")
            return cycle
        if ruling.action == "promote":
            return self._promote(line, cycle, ruling, numbers)
        ends = {"rollback": "rolled_back", "stop": "stopped"}
        return self._end(line, cycle, ends[ruling.action], ruling.action, ruling.reason, numbers=numbers)

    def _promote(self, line: Line, cycle: Cycle, ruling: Ruling, numbers: Mapping[str, Any]) -> Cycle:
        decided = Decided(
            event="promote",
            version=cycle.candidate,
            reason=ruling.reason,
            numbers={**numbers, FROM: cycle.champion},
            alias=line.registry.serve_alias,
        )
        made = self.loop.advance(cycle, "promoting", decided)
        self.say(line.role, f"promote: {ruling.reason}")
        return made

    def _promoting(self, line: Line, cycle: Cycle) -> Cycle:
        reigning = line.champion().number
        if reigning != cycle.candidate:
            return self._stop(line, cycle, f"the champion was moved by hand to {reigning} before it was promoted")
        made = self.loop.advance(cycle, "promoted")
        self.say(line.role, f"version {cycle.candidate} is the champion")
        return made

    def _stop(self, line: Line, cycle: Cycle, reason: str) -> Cycle:
        return self._end(line, cycle, "stopped", "stop", reason)

    def _end(
        self,
        line: Line,
        cycle: Cycle,
        state: str,
        event: str,
        reason: str,
        *before: Decided,
        numbers: Mapping[str, Any] | None = None,
    ) -> Cycle:
        last = Decided(event=event, version=cycle.candidate, reason=reason, numbers=numbers or {}, alert=True)
        made = self.loop.advance(cycle, state, *before, last)
        self.say(line.role, f"{event}: {reason}")
        return made


def _figures(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What metrics show of one side of a rollout."""
    ended = [each.success for each in outcomes if each.success is not None]
    stars = [each.stars for each in outcomes if each.stars is not None]
    return {
        "sessions": len(outcomes),
        "success": sum(ended) / len(ended) if ended else None,
        "stars": sum(stars) / len(stars) if stars else None,
    }
