"""The default rule: bounds on the differences to the stable version that hold at every tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from loraloop.canary import reasons
from loraloop.canary.tally import Arm, Array, Sample, arms
from loraloop.durations import Span, moment, span
from loraloop.part import part
from loraloop.records import FrozenMap, Outcome, Rollout, Ruling
from loraloop.sequential import mismatch, radius

Action = Literal["promote", "rollback", "wait", "stop"]
ACTIONS: tuple[Action, ...] = ("wait", "promote", "rollback", "stop")
SUCCESS, STARS = (0.0, 1.0), (1.0, 5.0)
"""Ends of the scales."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Canary minus stable, with bounds that each hold at every tick; infinite where nothing can be said yet."""

    value: Array
    lower: Array
    upper: Array


@dataclass(frozen=True, slots=True)
class Judgement:
    """What :meth:`Sequential.judge` found, an entry for every rollout."""

    action: NDArray[np.int64]
    success: Difference
    stars: Difference
    mismatch: Array


@part
class Sequential:
    """Promotes what is proven not to be worse by more than the margins; rolls back what is proven to be worse.

    The unit of analysis is the conversation, which is what was assigned: its mean is one observation of success and one
    of stars. Promotion asks for both lower bounds, each at ``alpha``, so that it is wrong at most with ``alpha`` where
    either margin is reached (an intersection-union test, Berger 1982). A rollback needs one upper bound below zero,
    each at half of ``alpha``. Where both hold, a version known to be worse but within the margins, it is rolled back.

    The bounds are about the people who came: with few of them, each with habits of their own, others might differ.

    For each bound, every arm gets one made-up conversation at the end of the scale that speaks against the claim: no
    failures in a few conversations are not a variance of zero (after Agresti and Caffo 2000, who add to both ends).

    Attributes:
        share: Of the conversations that the canary answers.
        success_margin: By how much its success rate may be lower at most.
        stars_margin: By how many stars its rating may be lower at most.
        alpha: Probability of a wrong promotion at a margin, and of a rollback of a version that is as good.
        min_sessions: Sessions of the canary before anything is decided.
        max_sessions: Sessions of the canary after which it ends undecided.
        max_age: Time after which it ends undecided.
        mismatch_alpha: Probability of ending a rollout for its arms' sizes although the assignment is as it should be.
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
                "end undecided; lower the one or raise the other"
            )
        return self

    @property
    def least_rating(self) -> float | None:
        """None: it compares with the stable version alone."""
        return None

    def judge(self, stable: Arm, canary: Arm, age: timedelta, share: float | None = None) -> Judgement:
        """Judge any number of rollouts of the same age at once.

        Args:
            stable: The stable arms.
            canary: The canaries.
            age: Of the rollouts.
            share: Under which they were assigned; this rule's own if not given.
        """
        success = self._difference(stable.success, canary.success, self.success_margin, SUCCESS)
        stars = self._difference(stable.stars, canary.stars, self.stars_margin, STARS)
        everyone = stable.conversations + canary.conversations
        uneven = mismatch(canary.conversations, everyone, self.share if share is None else share)
        worse = (success.upper < 0) | (stars.upper < 0)
        fine = (success.lower > -self.success_margin) & (stars.lower > -self.stars_margin)
        capped = (canary.sessions >= self.max_sessions) | (age >= span(self.max_age))
        enough = canary.sessions >= self.min_sessions
        cases = [uneven >= -np.log(self.mismatch_alpha), enough & worse, enough & fine, capped]
        chosen = [ACTIONS.index(action) for action in ("stop", "rollback", "promote", "stop")]
        return Judgement(np.select(cases, chosen, ACTIONS.index("wait")), success, stars, uneven)

    def decide(self, rollout: Rollout, outcomes: Sequence[Outcome], now: str) -> Ruling:
        """What to do with a rollout, and why."""
        stable, canary, others = arms(rollout, outcomes)
        age = moment(now) - moment(rollout.began)
        found = self.judge(stable, canary, age, rollout.share)
        action = ACTIONS[int(found.action[0])]
        numbers = self._numbers(stable, canary, found, rollout.share, others) | {"age_hours": age / timedelta(hours=1)}
        return Ruling(action=action, reason=self._reason(action, numbers), numbers=numbers)

    def _difference(self, stable: Sample, canary: Sample, margin: float, scale: tuple[float, float]) -> Difference:
        worst, best = scale
        lower = self._bound(stable.also(best), canary.also(worst), margin, self.alpha, -1)
        upper = self._bound(stable.also(worst), canary.also(best), margin, self.alpha / 2, +1)
        nothing = (stable.n == 0) | (canary.n == 0)
        return Difference(
            value=canary.mean - stable.mean,
            lower=np.where(nothing, -np.inf, np.maximum(lower, worst - best)),
            upper=np.where(nothing, np.inf, np.minimum(upper, best - worst)),
        )

    def _bound(self, stable: Sample, canary: Sample, margin: float, alpha: float, side: int) -> Array:
        reach = radius(stable.error + canary.error, margin, alpha)
        return np.asarray(canary.mean - stable.mean + side * reach)

    def _numbers(self, stable: Arm, canary: Arm, found: Judgement, share: float, others: int) -> dict[str, Any]:
        numbers: dict[str, Any] = {
            "alpha": self.alpha,
            "share": share,
            "stable": _side(stable),
            "canary": _side(canary),
            "other_sessions": others,
            "mismatch_p": float(min(1.0, np.exp(-found.mismatch[0]))),
        }
        for name, each, margin in (
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
        few = numbers["canary"]["sessions"] < self.min_sessions
        found = reasons.few(numbers, self.min_sessions) if few else reasons.open_yet(numbers)
        if action == "wait":
            return found
        cap = "max_sessions" if numbers["canary"]["sessions"] >= self.max_sessions else "max_age"
        return f"ended without a promotion at canary.{cap}={getattr(self, cap)}: {found}"


def _side(arm: Arm) -> dict[str, Any]:
    return {
        "sessions": int(arm.sessions[0]),
        "conversations": int(arm.conversations[0]),
        "rated_conversations": int(arm.stars.n[0]),
        "success": _finite(arm.success.mean[0]),
        "stars": _finite(arm.stars.mean[0]),
    }


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
