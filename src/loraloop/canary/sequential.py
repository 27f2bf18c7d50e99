"""The default canary rule: bounds on the differences to the stable version that hold at every tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from loraloop.canary import reasons
from loraloop.canary.tally import Arm, Array, Sample, Tally, arms
from loraloop.core.anytime_valid import mismatch, radius
from loraloop.core.durations import Span, moment, span
from loraloop.core.part import part
from loraloop.records import CanaryVerdict, FrozenMap, Outcome, Rollout

Action = Literal["promote", "rollback", "wait", "stop"]
ACTIONS: tuple[Action, ...] = ("wait", "promote", "rollback", "stop")
SHARE, STARS = (0.0, 1.0), (1.0, 5.0)
"""The ends of the scales of a share and of stars."""
CROSSED, STRAY = 0.01, 3
"""A rollout stops if more than this share of the canary's conversations, and at least this many, met both versions.

They are left out of the comparison, and as many failures could be hidden in them. The assignment alone makes none."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Canary minus stable, with bounds that each hold at every tick; infinite while an arm has no observation."""

    value: Array
    lower: Array
    upper: Array


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of :meth:`Sequential.judge`, an entry for every rollout; ``action`` is an index of ``ACTIONS``."""

    action: NDArray[np.int64]
    completed: Difference
    success: Difference
    stars: Difference
    mismatch: Array


@part
class Sequential:
    """Promotes a version that is shown not to be worse by more than the margins; rolls back one shown to be worse.

    The unit of analysis is the conversation, because conversations are assigned: its mean is one observation of each
    measure. The measures are the share of its sessions that ended rather than being left by the client; of these, the
    share that succeeded; and the stars. Promotion needs all lower bounds above their margins, each at ``alpha``: if the
    version is worse by a margin in any measure, it is promoted with a probability of about ``alpha`` at most (an
    intersection-union test, Berger 1982; the bounds are asymptotic). A rollback needs one upper bound below zero, each
    at a third of ``alpha``. A version that is shown to be worse, but by less than the margins, is rolled back.

    The bounds are about the mean of the conversation means of the people who came and, for the stars, who rated. With
    few people, others might differ.

    For each bound, every arm gets one made-up conversation at the end of the scale that speaks against the claim, so
    that a few conversations without a failure do not have a variance of zero (after Agresti and Caffo 2000, who add to
    both ends).

    Attributes:
        share: The share of the conversations that the canary answers.
        success_margin: How much lower its success rate, and its share of sessions that end, may be.
        stars_margin: How many stars lower its rating may be.
        alpha: Probability of a wrong promotion at a margin, and of a rollback of a version that is as good.
        min_sessions: Fewest sessions of the canary before a verdict.
        max_sessions: Sessions of the canary after which an undecided rollout stops.
        max_age: Age at which an undecided rollout stops.
        mismatch_alpha: Probability of stopping a rollout for its arms' sizes although the assignment is right.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    success_margin: Annotated[float, Field(gt=0, lt=1)] = 0.05
    stars_margin: Annotated[float, Field(gt=0, lt=4)] = 0.25
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    min_sessions: Annotated[int, Field(ge=2)] = 20
    max_sessions: Annotated[int, Field(ge=2)] = 2000
    max_age: Span = "21d"
    mismatch_alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.001

    @model_validator(mode="after")
    def _decides_before_the_cap(self) -> Sequential:
        if self.min_sessions > self.max_sessions:
            raise ValueError(
                f"min_sessions={self.min_sessions} is more than max_sessions={self.max_sessions}: every rollout would "
                "stop undecided; lower min_sessions or raise max_sessions"
            )
        return self

    @property
    def least_rating(self) -> float | None:
        """``None``: it compares with the stable version alone."""
        return None

    def judge(
        self, stable: Arm, canary: Arm, age: timedelta, share: float | None = None, crossed: ArrayLike = 0
    ) -> Judgement:
        """Judge any number of rollouts of the same age at once.

        Args:
            stable: The stable arms.
            canary: The canaries.
            age: Of the rollouts.
            share: The share that they were assigned by; ``None``: this rule's.
            crossed: Conversations that met both arms.
        """
        completed = self._difference(stable.completed, canary.completed, self.success_margin, SHARE)
        success = self._difference(stable.success, canary.success, self.success_margin, SHARE)
        stars = self._difference(stable.stars, canary.stars, self.stars_margin, STARS)
        everyone = stable.conversations + canary.conversations
        uneven = mismatch(canary.conversations, everyone, self.share if share is None else share)
        unclear = _unclear(crossed, canary.conversations)
        worse = (completed.upper < 0) | (success.upper < 0) | (stars.upper < 0)
        ended = np.minimum(completed.lower, success.lower)
        fine = (ended > -self.success_margin) & (stars.lower > -self.stars_margin)
        capped = (canary.sessions >= self.max_sessions) | (age >= span(self.max_age))
        enough = canary.sessions >= self.min_sessions
        cases = [(uneven >= -np.log(self.mismatch_alpha)) | unclear, enough & worse, enough & fine, capped]
        chosen = [ACTIONS.index(action) for action in ("stop", "rollback", "promote", "stop")]
        return Judgement(np.select(cases, chosen, ACTIONS.index("wait")), completed, success, stars, uneven)

    def decide(self, rollout: Rollout, outcomes: Sequence[Outcome], now: str) -> CanaryVerdict:
        """The verdict on a rollout."""
        tally = arms(rollout, outcomes)
        age = moment(now) - moment(rollout.began)
        found = self.judge(tally.stable, tally.canary, age, rollout.share, tally.crossed)
        action = ACTIONS[int(found.action[0])]
        numbers = self._numbers(tally, found, rollout.share) | {"age_hours": age / timedelta(hours=1)}
        return CanaryVerdict(action=action, reason=self._reason(action, numbers), numbers=numbers)

    def _difference(self, stable: Sample, canary: Sample, margin: float, scale: tuple[float, float]) -> Difference:
        worst, best = scale
        lower = self._bound(stable.also(best), canary.also(worst), margin, self.alpha, -1)
        upper = self._bound(stable.also(worst), canary.also(best), margin, self.alpha / 3, +1)
        nothing = (stable.n == 0) | (canary.n == 0)
        return Difference(
            value=canary.mean - stable.mean,
            lower=np.where(nothing, -np.inf, np.maximum(lower, worst - best)),
            upper=np.where(nothing, np.inf, np.minimum(upper, best - worst)),
        )

    def _bound(self, stable: Sample, canary: Sample, margin: float, alpha: float, side: int) -> Array:
        reach = radius(stable.error + canary.error, margin, alpha)
        return np.asarray(canary.mean - stable.mean + side * reach)

    def _numbers(self, tally: Tally, found: Judgement, share: float) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "alpha": self.alpha,
            "share": share,
            "stable": _side(tally.stable),
            "canary": _side(tally.canary),
            "crossed_conversations": tally.crossed,
            "other_sessions": tally.others,
            "mismatch_p": float(min(1.0, np.exp(-found.mismatch[0]))),
        }
        for name, each, margin in (
            ("completed", found.completed, self.success_margin),
            ("success", found.success, self.success_margin),
            ("stars", found.stars, self.stars_margin),
        ):
            figures = {"difference": each.value, "lower": each.lower, "upper": each.upper}
            numbers[name] = {key: _finite(value[0]) for key, value in figures.items()} | {"margin": margin}
        return numbers

    def _reason(self, action: Action, numbers: FrozenMap) -> str:
        if action == "promote":
            return reasons.promoted(numbers)
        if action == "rollback":
            return reasons.rolled_back(numbers)
        if numbers["mismatch_p"] <= self.mismatch_alpha:
            return reasons.uneven(numbers, self.mismatch_alpha)
        if action == "stop" and _unclear(numbers["crossed_conversations"], numbers["canary"]["conversations"]):
            return reasons.crossed(numbers)
        few = numbers["canary"]["sessions"] < self.min_sessions
        found = reasons.too_few(numbers, self.min_sessions) if few else reasons.undecided(numbers)
        if action == "wait":
            return found
        cap = "max_sessions" if numbers["canary"]["sessions"] >= self.max_sessions else "max_age"
        return f"ended without a promotion at canary.{cap}={getattr(self, cap)}: {found}"


def _unclear(crossed: ArrayLike, clean: ArrayLike) -> NDArray[np.bool_]:
    """Whether so many conversations met both versions that the others are no fair sample."""
    crossed = np.asarray(crossed)
    return np.asarray((crossed >= STRAY) & (crossed > CROSSED * (np.asarray(clean) + crossed)))


def _side(arm: Arm) -> dict[str, Any]:
    return {
        "sessions": int(arm.sessions[0]),
        "conversations": int(arm.conversations[0]),
        "rated_conversations": int(arm.stars.n[0]),
        "completed": _finite(arm.completed.mean[0]),
        "success": _finite(arm.success.mean[0]),
        "stars": _finite(arm.stars.mean[0]),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
