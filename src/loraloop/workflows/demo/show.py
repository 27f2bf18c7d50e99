"""The demonstration's rounds: users ask and rate, then the loop takes a step, until a cycle is over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from loraloop.errors import LoraloopError

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.loop.cycle import Cycle
    from loraloop.workflows.demo.timeline import Timeline
    from loraloop.workflows.demo.users import Seen, Users
    from loraloop.workflows.retraining.deployment import Deployment
    from loraloop.workflows.retraining.machine import RetrainingLoop

SESSIONS = 100
"""Sessions between two ticks."""
MAX_ROUNDS = 40


class UndecidedError(LoraloopError):
    """The demonstration did not end as it should."""


@dataclass(frozen=True)
class Show:
    """Simulated users and ticks in turn."""

    timeline: Timeline
    users: Users
    store: Store
    loop: RetrainingLoop
    deployment: Deployment

    def until(self, end: str, *, reviewed: bool = False) -> None:
        """Continue until a cycle is over.

        Args:
            end: The state that the cycle should end in.
            reviewed: Whether a reviewer accepts the corrections that users write.

        Raises:
            UndecidedError: The cycle ended in another state, or did not end within ``MAX_ROUNDS`` rounds.
        """
        for _ in range(MAX_ROUNDS):
            self.timeline.say("users", summary(self.users.visit(SESSIONS)))
            if reviewed:
                self._review()
            cycle = self.loop.proceed(self.deployment) or self._last()
            if cycle is not None and cycle.ended is not None:
                break
        state = cycle.state if cycle is not None else "never begun"
        if state != end:
            raise UndecidedError(f"the demonstration's cycle should be {end}, but is {state}: the timeline says why")
        champion = self.deployment.name_of(self.deployment.champion().number)
        self.timeline.say("loop", f"{state.replace('_', ' ')}: {champion} is the champion, and answers everybody")

    def _review(self) -> None:
        waiting = self.store.proposals()
        if not waiting or self.loop.cycles.state.open(self.deployment.role) is not None:
            return
        for each in waiting:
            self.store.decide(each.id, "accepted")
        self.timeline.say("reviewer", f"accepts the {len(waiting)} answers that users wrote instead")

    def _last(self) -> Cycle | None:
        cycles = self.loop.cycles.state.cycles(self.deployment.role)
        return cycles[-1] if cycles else None


def summary(seen: Sequence[Seen]) -> str:
    """How often each version answered, how often it was right, and the stars that it got."""
    parts = []
    for name, count in sorted(Counter(each.answered for each in seen).items()):
        own = [each for each in seen if each.answered == name]
        right = np.mean([each.right for each in own])
        parts.append(f"{count} by {name}, {right:.0%} right, {np.mean([each.stars for each in own]):.1f} stars")
    return f"{len(seen)} sessions: {'; '.join(parts)}"
