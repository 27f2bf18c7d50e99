"""What a rollout's sessions add up to: per arm and measure, the means of conversations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from loraloop.records import Outcome, Rollout

Array = NDArray[np.float64]


class Sample(NamedTuple):
    """Observations by number, sum and sum of squares; an array each, one entry for every rollout."""

    n: Array
    total: Array
    squares: Array

    @classmethod
    def of(cls, values: Iterable[float]) -> Sample:
        """One rollout's sample."""
        found = np.array(list(values), dtype=float)
        return cls(np.array([float(len(found))]), np.array([found.sum()]), np.array([np.square(found).sum()]))

    def also(self, value: float) -> Sample:
        """With one more observation."""
        return Sample(self.n + 1, self.total + value, self.squares + value**2)

    @property
    def mean(self) -> Array:
        """NaN where there is no observation."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.total / self.n)

    @property
    def error(self) -> Array:
        """Estimated variance of the mean; infinite below two observations."""
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.maximum(self.squares - self.total**2 / self.n, 0.0)
            return np.where(self.n > 1, spread / (self.n - 1) / self.n, np.inf)


@dataclass(frozen=True, slots=True)
class Arm:
    """What one version did in rollouts: sessions, conversations, and a mean of each conversation.

    Attributes:
        completed: Shares of a conversation's sessions that came to an end, a good or a bad one.
        success: Shares of those that came to a good one.
        stars: Mean ratings.
    """

    sessions: Array
    conversations: Array
    completed: Sample
    success: Sample
    stars: Sample


class Tally(NamedTuple):
    """What a rollout's sessions add up to.

    Attributes:
        crossed: Conversations that met both versions, or one of them and something else.
        others: Sessions that belong to neither arm.
    """

    stable: Arm
    canary: Arm
    crossed: int
    others: int


def arms(rollout: Rollout, outcomes: Sequence[Outcome]) -> Tally:
    """The stable arm and the canary's, and what is in neither.

    Sessions of one conversation resemble each other, and the conversation is what was assigned: its mean is one
    observation. A conversation that met both versions compares nothing; it is left out and counted, and sessions that
    something else answered are left out.
    """
    talks: dict[str, dict[int, list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for each in outcomes:
        talks[each.conversation][each.version].append(each)
    sides: dict[int, list[list[Outcome]]] = {rollout.stable: [], rollout.canary: []}
    crossed = 0
    for versions in talks.values():
        if len(versions) == 1 and (side := next(iter(versions))) in sides:
            sides[side].append(versions[side])
        elif len(versions) > 1 and not versions.keys().isdisjoint(sides):
            crossed += 1
    stable, canary = (_arm(sides[version]) for version in (rollout.stable, rollout.canary))
    return Tally(stable, canary, crossed, len(outcomes) - int(stable.sessions[0] + canary.sessions[0]))


def _arm(talks: Sequence[Sequence[Outcome]]) -> Arm:
    ended = ([each.success for each in talk if each.success is not None] for talk in talks)
    rated = ([each.stars for each in talk if each.stars is not None] for talk in talks)
    return Arm(
        sessions=np.array([float(sum(map(len, talks)))]),
        conversations=np.array([float(len(talks))]),
        completed=Sample.of(float(np.mean([each.success is not None for each in talk])) for talk in talks),
        success=Sample.of(float(np.mean(each)) for each in ended if each),
        stars=Sample.of(float(np.mean(each)) for each in rated if each),
    )
