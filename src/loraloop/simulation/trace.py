"""What a policy's rules do with sessions as these come in: what is told in a table and drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from loraloop.protocols import Canary, Trigger
from loraloop.records import CanaryVerdict, Outcome, Rollout, Verdict

Kind = Literal["trigger", "promote", "rollback", "stop", "open"]


@dataclass(frozen=True, slots=True)
class Rules:
    """A trigger and a canary under the name that people see."""

    name: str
    trigger: Trigger
    canary: Canary


@dataclass(frozen=True, slots=True)
class TraceEvent:
    """Something that happened, or ``open``: that something had not come to its end when the sessions did."""

    time: datetime
    kind: Kind
    subject: str
    reason: str


@dataclass(slots=True)
class Trace:
    """Everything that the rules said.

    Attributes:
        began: When the first session came.
        looks: At the active version: when, its name, the verdict of the trigger.
        rulings: On rollouts: when, the rollout, the canary's ruling.
    """

    rules: Rules
    began: datetime
    events: list[TraceEvent] = field(default_factory=list)
    looks: list[tuple[datetime, str, Verdict]] = field(default_factory=list)
    rulings: list[tuple[datetime, Rollout, CanaryVerdict]] = field(default_factory=list)

    def look(self, now: datetime, version: str, outcomes: Sequence[Outcome], since: datetime) -> bool:
        """Ask the trigger; whether it fires."""
        decision = self.rules.trigger.decide(outcomes, since.isoformat(), now.isoformat())
        self.looks.append((now, version, decision))
        if decision.passed:
            self.events.append(TraceEvent(now, "trigger", version, decision.reason))
        return decision.passed

    def rule(self, now: datetime, rollout: Rollout, outcomes: Sequence[Outcome]) -> CanaryVerdict:
        """Ask the canary."""
        ruling = self.rules.canary.decide(rollout, outcomes, now.isoformat())
        self.rulings.append((now, rollout, ruling))
        if ruling.action != "wait":
            self.events.append(TraceEvent(now, ruling.action, spell(rollout), ruling.reason))
        return ruling

    def leave(self, now: datetime, rollout: Rollout) -> None:
        """Note that a rollout had no end yet."""
        last = [ruling.reason for _, ruled, ruling in self.rulings if ruled == rollout][-1:]
        self.events.append(TraceEvent(now, "open", spell(rollout), *(last or ["it has only begun"])))


def spell(rollout: Rollout) -> str:
    """What a rollout puts in the place of what."""
    return f"{rollout.role}@{rollout.canary} for @{rollout.stable}"


def ticks(first: datetime, last: datetime, every: timedelta) -> Iterator[datetime]:
    """The moments at which rules are asked: every ``every``, at least once and until ``last`` is seen."""
    now = first
    while True:
        now += every
        yield now
        if now >= last:
            return
