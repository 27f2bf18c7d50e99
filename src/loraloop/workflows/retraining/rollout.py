"""Rollouts: a new version beside the one that reigns, until it wins, loses or ends; by rule or by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from loraloop.errors import ArtefactError, ConfigError, LoraloopError, StoreError, UnknownVersionError
from loraloop.loop.cycle import Cycle, Event
from loraloop.loop.store import MovedError
from loraloop.workflows.retraining.outbox import FROM, LEDGER, REFUSE, TRIED, Outbox

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.loop.store import LoopStore
    from loraloop.policy import Policy
    from loraloop.protocols import Alerts, Tracker
    from loraloop.records import CanaryVerdict, Outcome, Version
    from loraloop.workflows.retraining.deployment import Deployment

Say = Callable[[str, str], None]
"""Told a role and a sentence."""
PATIENCE = 30
"""Seconds that a rollback by hand waits for another one."""
AT_ONCE = timedelta(seconds=10)
"""Two rollbacks within this time were asked for at once: they mean the same version."""


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

    def telling(self, line: Deployment) -> Outbox:
        """What takes this line's decisions to ledger, tracker and people."""
        return Outbox(self.loop, line.model, line.registry, self.tracker, self.alerts)

    def start(self, line: Deployment, version: Version) -> Cycle:
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
        share, decided = self._beginning(champion.number, version.number)
        cycle = self.loop.choose(
            line.role, line.model, champion.number, version.number, self.policy.name, share, decided
        )
        self.say(line.role, f"rollout: {decided.reason}")
        self.telling(line).publish()
        return cycle

    def taken_back(self, line: Deployment, number: int) -> str | None:
        """When and why a version was rolled back, if it was."""
        for entry in reversed(line.registry.history()):
            if entry.event == "rollback" and entry.numbers.get(FROM, entry.version) == number:
                return f"{entry.reason} ({entry.time:.16})"
        return None

    def take_back(self, line: Deployment, reason: str, version: int | None = None) -> None:
        """At once: end the rollout that runs, or give the alias back to the version that reigned before.

        A running rollout is ended in the database alone, whatever registry and tracker are like.

        Args:
            line: Of the role.
            reason: Why, for the ledger.
            version: What is taken back; ``None``: whatever is tried, or else reigns.

        Raises:
            ConfigError: There is nothing to take back, or another rollback was asked for at the same time.
            StoreError: It could not be carried out.
        """
        since = (datetime.fromisoformat(self.loop.now()) - AT_ONCE).isoformat(timespec="milliseconds")
        if self._end_rollout(line, reason, version):
            self._tell_later(line)
            return
        with self.loop.claim(f"rollback {line.model}", PATIENCE) as free:
            if not free:
                raise StoreError(f"another rollback of {line.model} has been at work for {PATIENCE} s: repeat this")
            self._give_back(line, reason, version, since)

    def _end_rollout(self, line: Deployment, reason: str, version: int | None) -> bool:
        """End the role's rollout, also one that a tick has begun to promote; whether there was one."""
        while (cycle := self.loop.open(line.role)) is not None and cycle.rollout:
            if version not in (None, cycle.candidate):
                return False
            try:
                self._withdraw(line, cycle, f"the rollout of version {cycle.candidate} was ended: {reason}")
                return True
            except MovedError:
                now = self.loop.cycle(cycle.id)
                if now.ended and now.state != "promoted":  # there is nothing more to take back
                    self.say(line.role, f"the rollout of version {cycle.candidate} was ended just now: {now.state}")
                    return True
        return False

    def _withdraw(self, line: Deployment, cycle: Cycle, sentence: str) -> None:
        if cycle.state != "promoting":
            self._end(line, cycle, "rolled_back", "rollback", sentence)
            return
        sentence = f"{sentence}; version {cycle.champion} reigns again"
        alias, numbers = line.registry.serve_alias, {FROM: cycle.candidate}
        back = Event(
            event="rollback", version=cycle.champion, reason=sentence, numbers=numbers, alias=alias, alert=True
        )
        self.loop.advance(cycle, "rolled_back", back)
        self.say(line.role, f"rollback: {sentence}")

    def _tell_later(self, line: Deployment) -> None:
        try:
            self.telling(line).publish()
        except LoraloopError as error:
            self.say(line.role, f"this is decided; the next tick sees to registry and tracker, as now {error}")

    def _give_back(self, line: Deployment, reason: str, version: int | None, since: str) -> None:
        telling = self.telling(line)
        waiting = [each for each in self.loop.untold(line.model) if LEDGER not in each.told]
        telling.enter()
        if begun := [each.id for each in waiting if each.decided.event == "rollback"]:
            self._report(line, telling, begun[-1])
            return
        if version is None and self.loop.decided(line.model, "rollback", since):
            raise ConfigError(
                f"another rollback of {line.model} was decided within {AT_ONCE.seconds} s: this one goes no further; "
                "with version=N it takes back the version that reigns as well"
            )
        before, reigning = line.before(), line.reigning()
        if version not in (None, reigning):
            raise ConfigError(f"version={version} of {line.model} is neither tried nor does it reign: {reigning} does")
        if before is None:
            raise ConfigError(
                f"{line.role} has nothing to go back to: no rollout runs, and no version of {line.model} reigned "
                f"before version {reigning}; loraloop stage=promote registry.name={line.model} version=N takes any"
            )
        line.registry.resolve(str(before))
        instead = f" instead of {reigning}" if reigning else ""
        sentence = f"version {before} reigns again{instead}: {reason}"
        alias, numbers = line.registry.serve_alias, {FROM: reigning}
        decided = Event(event="rollback", version=before, reason=sentence, numbers=numbers, alias=alias, alert=True)
        name = self.loop.decide(line.role, line.model, self.policy.name, decided)
        telling.enter()
        self._report(line, telling, name)

    def _report(self, line: Deployment, telling: Outbox, decision: str) -> None:
        """Say what became of it: somebody else may have moved the alias meanwhile."""
        self._tell_later(line)
        event, reason = telling.entered(decision) or (REFUSE, f"{decision} is not in the ledger")
        if event == REFUSE:
            raise StoreError(
                f"{line.role}: {reason}; repeat this in {AT_ONCE.seconds} s, or with version=N, to take back who reigns"
            )
        self.say(line.role, f"rollback: {reason}")

    def _beginning(self, stable: int, canary: int) -> tuple[float, Event]:
        share = self.policy.canary.share
        numbers = {"share": share, "stable": stable, "canary": canary}
        reason = f"version {canary} answers {share:.0%} of the conversations, version {stable} the others"
        return share, Event(event="rollout", version=canary, reason=reason, numbers=numbers, alias=TRIED)

    def _registered(self, line: Deployment, cycle: Cycle) -> Cycle:
        share, decided = self._beginning(cycle.champion, int(cycle.candidate or 0))
        made = self.loop.roll_out(cycle, share, decided)
        self.say(line.role, f"rollout: {decided.reason}")
        return made

    def _canary(self, line: Deployment, cycle: Cycle, *, held: bool = False) -> Cycle:
        """Judge the rollout; one that is ``held`` up may lose or end, and not win."""
        rollout = self.loop.rollout(str(cycle.rollout))
        outcomes = self.store.outcomes(rollout=rollout.id)
        ruling = self.policy.canary.decide(rollout, outcomes, self.loop.now())
        arms = {
            "stable": _figures([each for each in outcomes if each.answered == line.session(rollout.stable)]),
            "canary": _figures([each for each in outcomes if each.answered == line.session(rollout.canary)]),
        }
        self.loop.judge(rollout.id, {"action": ruling.action, "reason": ruling.reason, "arms": arms})
        numbers = {**ruling.numbers, "arms": arms}
        if ruling.action == "wait" or (held and ruling.action == "promote"):
            goes = "is held up" if ruling.action == "promote" else "goes on"
            self.say(line.role, f"the rollout of version {cycle.candidate} {goes}: {ruling.reason}")
            return cycle
        if ruling.action == "promote":
            return self._promote(line, cycle, ruling, numbers)
        ends = {"rollback": "rolled_back", "stop": "stopped"}
        return self._end(line, cycle, ends[ruling.action], ruling.action, ruling.reason, numbers=numbers)

    def _promote(self, line: Deployment, cycle: Cycle, ruling: CanaryVerdict, numbers: Mapping[str, Any]) -> Cycle:
        try:
            line.registry.resolve(str(cycle.candidate))
        except (ArtefactError, UnknownVersionError) as error:
            reason = f"it won, and cannot be promoted: {error}"
            return self._end(line, cycle, "rolled_back", "rollback", reason, numbers=numbers)
        decided = Event(
            event="promote",
            version=cycle.candidate,
            reason=ruling.reason,
            numbers={**numbers, FROM: cycle.champion},
            alias=line.registry.serve_alias,
        )
        made = self.loop.advance(cycle, "promoting", decided)
        self.say(line.role, f"promote: {ruling.reason}")
        return made

    def _promoting(self, line: Deployment, cycle: Cycle) -> Cycle:
        reigning = line.champion().number
        if reigning == cycle.champion:
            reason = "it won, and its promotion could not be carried out: the ledger says why"
            return self._end(line, cycle, "rolled_back", "rollback", reason)
        if reigning != cycle.candidate:
            return self._stop(line, cycle, f"the champion was moved by hand to {reigning} before it was promoted")
        made = self.loop.advance(cycle, "promoted")
        self.say(line.role, f"version {cycle.candidate} is the champion")
        return made

    def _stop(self, line: Deployment, cycle: Cycle, reason: str) -> Cycle:
        return self._end(line, cycle, "stopped", "stop", reason)

    def _end(
        self,
        line: Deployment,
        cycle: Cycle,
        state: str,
        event: str,
        reason: str,
        *before: Event,
        numbers: Mapping[str, Any] | None = None,
    ) -> Cycle:
        last = Event(event=event, version=cycle.candidate, reason=reason, numbers=numbers or {}, alert=True)
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
