"""The sums of a rollout's sessions: per arm and measure, over the means of conversations."""

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
    """Number, sum and sum of squares of observations; each an array with an entry for every rollout."""

    n: Array
    total: Array
    squares: Array

    @classmethod
    def of(cls, values: Iterable[float]) -> Sample:
        """The sample of one rollout."""
        found = np.array(list(values), dtype=float)
        return cls(np.array([float(len(found))]), np.array([found.sum()]), np.array([np.square(found).sum()]))

    def also(self, value: float) -> Sample:
        """The sample with one more observation."""
        return Sample(self.n + 1, self.total + value, self.squares + value**2)

    @property
    def mean(self) -> Array:
        """The mean; NaN where there is no observation."""
        with np.errstate(invalid="ignore"):
            return np.asarray(self.total / self.n)

    @property
    def error(self) -> Array:
        """The estimated variance of the mean; infinite below two observations."""
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.maximum(self.squares - self.total**2 / self.n, 0.0)
            return np.where(self.n > 1, spread / (self.n - 1) / self.n, np.inf)


@dataclass(frozen=True, slots=True)
class Arm:
    """The sessions and conversations of one version, and its measures, one observation per conversation.

    Attributes:
        completed: The share of a conversation's sessions that ended, well or badly.
        success: The share of those that ended well.
        stars: The mean rating.
    """

    sessions: Array
    conversations: Array
    completed: Sample
    success: Sample
    stars: Sample


class Tally(NamedTuple):
    """Both arms of a rollout, and what belongs to neither.

    Attributes:
        crossed: Conversations that met both versions, or one of them and something else.
        others: Sessions that belong to neither arm.
    """

    stable: Arm
    canary: Arm
    crossed: int
    others: int


def arms(rollout: Rollout, outcomes: Sequence[Outcome]) -> Tally:
    """Divide a rollout's sessions into its arms.

    Sessions of one conversation resemble each other, and conversations are assigned: a conversation's mean is one
    observation. A conversation that met both versions is left out and counted. Sessions that another version or the
    base answered are left out.
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
