"""The part: made-up users of a service whose loop follows given rules."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import numpy as np
from pydantic import Field

from loraloop.core.durations import moment
from loraloop.core.part import part
from loraloop.records import Outcome, Rollout
from loraloop.simulation.trace import Rules, Trace, ticks
from loraloop.simulation.users import Answers, Quality, SimulatedUsers, Visits

BEGAN = datetime(2026, 1, 5, tzinfo=UTC)
"""When made-up time begins: a Monday."""
ROLE = "agent"


@part
class Simulation:
    """A service for some days: it begins with a version, and every retraining makes a candidate of a given quality.

    Attributes:
        days: How long it is watched.
        stable: The version that is active at first.
        candidate: Every version that is trained.
        crowd: The people.
        seed: Of everything that is drawn; rules that are compared meet the same people.
    """

    days: Annotated[float, Field(gt=0, le=365)] = 21
    stable: Quality = Field(default_factory=lambda: Quality(success=0.95, stars=3.6))
    candidate: Quality = Field(default_factory=lambda: Quality(success=0.985, stars=4.25))
    crowd: SimulatedUsers = Field(default_factory=lambda: SimulatedUsers(rated=0.25))
    seed: int = 0

    def play(self, rules: Rules, every: timedelta, cooldown: timedelta) -> Trace:
        """Let ``rules`` steer the service, asked after every tick; a retraining takes no time.

        Args:
            rules: The rules.
            every: Time between two ticks.
            cooldown: Least time between two retrainings.
        """
        count = max(1, round(timedelta(days=self.days) / every))
        visits = self.crowd.visit(1, count, np.random.default_rng(self.seed))
        nobody = np.zeros(visits.mood.shape, dtype=bool)
        answers = [self.crowd.answer(visits, self.stable, self.candidate, each) for each in (nobody, ~nobody)]
        service = _Service(Trace(rules, BEGAN), cooldown)
        for tick, now in enumerate(ticks(BEGAN, BEGAN + count * every, every)):
            service.step(_served(service, visits, answers, tick, now, every), now)
        if service.rollout is not None:
            service.trace.leave(now, service.rollout)
        return service.trace


class _Service:
    """Which versions answer, and what the rules have seen of them."""

    def __init__(self, trace: Trace, cooldown: timedelta) -> None:
        self.trace, self._cooldown = trace, cooldown
        self.rollout: Rollout | None = None
        self._active, self._newest = 1, 1
        self._active_since = self._trained = BEGAN
        self._seen: list[Outcome] = []

    def version(self, conversation: str) -> int:
        return self.rollout.version(conversation) if self.rollout else self._active

    def step(self, served: Sequence[Outcome], now: datetime) -> None:
        self._seen += served
        if self.rollout is not None:
            self._judge(self.rollout, now)
        elif self._newest == 1 or now >= self._trained + self._cooldown:
            self._look(now)

    def _look(self, now: datetime) -> None:
        """Ask about what the active version did since it became active and since a retraining last began."""
        since = max(self._active_since, self._trained)
        if self.trace.look(now, f"{ROLE}@{self._active}", self._seen, since):
            self._newest += 1
            self._trained, self._seen = now, []
            self.rollout = Rollout(
                id=f"rollout-{self._newest}",
                role=ROLE,
                model=ROLE,
                stable=self._active,
                canary=self._newest,
                share=self.trace.rules.canary.share,
                began=now.isoformat(),
            )

    def _judge(self, rollout: Rollout, now: datetime) -> None:
        ruling = self.trace.rule(now, rollout, self._seen)
        if ruling.action == "wait":
            return
        if ruling.action == "promote":
            self._active, self._active_since = rollout.canary, now
        name = f"{ROLE}@{self._active}"
        since = max(self._active_since, self._trained)
        self._seen = [each for each in self._seen if each.answered == name and moment(each.time) >= since]
        self.rollout = None


def _served(
    service: _Service, visits: Visits, answers: Sequence[Answers], tick: int, now: datetime, every: timedelta
) -> list[Outcome]:
    """The sessions of the tick that ends now."""
    size = visits.mood.shape[-1]
    outcomes = []
    for place in range(size):
        talk = f"talk {tick}-{visits.talk[0, tick, place]}"
        version = service.version(talk)
        found = answers[version > 1]
        stars = found.stars[0, tick, place]
        outcomes.append(
            Outcome(
                session=f"session {tick}-{place}",
                time=(now - every * (1 - place / size)).isoformat(),
                conversation=talk,
                rater=f"person {visits.rater[0, tick, place]}",
                answered=f"{ROLE}@{version}",
                rollout=service.rollout.id if service.rollout else None,
                success=bool(found.success[0, tick, place]),
                stars=int(stars) if np.isfinite(stars) else None,
            )
        )
    return outcomes
