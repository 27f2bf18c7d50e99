"""The simple canary rule of ``policy=seed``: the canary's latest sessions have to be good enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from loraloop.core.durations import Span, moment, span
from loraloop.core.part import part
from loraloop.records import CanaryVerdict, Outcome, Rollout


@part
class Plain:
    """Promotes if the canary's last sessions succeed and are rated well enough, and rolls back if not.

    The rule ignores chance and the stable version; ``benchmarks/canary.py`` shows how often it is wrong.

    Attributes:
        share: The share of the conversations that the canary answers.
        min_success: The success rate has to be above it.
        min_rating: The mean stars have to be above it.
        window: Latest sessions of the canary that count.
        min_sessions: Fewest of these sessions that ended before a verdict, whatever conversations they belong to.
        max_age: Age at which an undecided rollout stops.
    """

    share: Annotated[float, Field(gt=0, lt=1)] = 0.15
    min_success: Annotated[float, Field(ge=0, lt=1)] = 0.95
    min_rating: Annotated[float, Field(ge=1, lt=5)] = 3.5
    window: Annotated[int, Field(ge=1)] = 20
    min_sessions: Annotated[int, Field(ge=1)] = 10
    max_age: Span = "21d"

    @model_validator(mode="after")
    def _fits(self) -> Plain:
        if self.min_sessions > self.window:
            raise ValueError(
                f"min_sessions={self.min_sessions} is more than window={self.window}, and has to fit into it: lower "
                "min_sessions or raise window"
            )
        return self

    @property
    def least_rating(self) -> float | None:
        """``min_rating``: it promotes above that."""
        return self.min_rating

    def healthy(self, success: ArrayLike, stars: ArrayLike) -> NDArray[np.bool_]:
        """Whether success rates and mean ratings are high enough; one of each per rollout."""
        return np.asarray((np.asarray(success) > self.min_success) & (np.asarray(stars) > self.min_rating))

    def decide(self, rollout: Rollout, outcomes: Sequence[Outcome], now: str) -> CanaryVerdict:
        """The verdict on a rollout."""
        answered = [each for each in outcomes if each.version == rollout.canary][-self.window :]
        ended = [each.success for each in answered if each.success is not None]
        stars = [each.stars for each in answered if each.stars is not None]
        numbers: dict[str, Any] = {
            "sessions": len(answered),
            "ended": len(ended),
            "ratings": len(stars),
            "success": float(np.mean(ended)) if ended else None,
            "stars": float(np.mean(stars)) if stars else None,
            "min_success": self.min_success,
            "min_rating": self.min_rating,
        }
        short = None
        if len(ended) < self.min_sessions:
            left = f", {len(answered) - len(ended)} more that the client left" * (len(ended) < len(answered))
            more = f"{self.min_sessions - len(ended)} more needed (canary.min_sessions={self.min_sessions})"
            short = f"{len(ended)} sessions of version {rollout.canary}{left}; {more}"
        elif not stars:
            short = f"none of the last {len(answered)} sessions of version {rollout.canary} is rated; 1 rating needed"
        if short is not None:
            if moment(now) - moment(rollout.began) < span(self.max_age):
                return CanaryVerdict(action="wait", reason=short, numbers=numbers)
            capped = f"ended without a promotion at canary.max_age={self.max_age}: {short}"
            return CanaryVerdict(action="stop", reason=capped, numbers=numbers)
        success, rating = float(np.mean(ended)), float(np.mean(stars))
        found = (
            f"the last {len(answered)} sessions of version {rollout.canary}: success {success:.1%} "
            f"{'>' if success > self.min_success else 'is not above'} {self.min_success:.1%}, rating {rating:.2f} "
            f"{'>' if rating > self.min_rating else 'is not above'} {self.min_rating:g} ({len(stars)} rated)"
        )
        action: Literal["promote", "rollback"] = "promote" if self.healthy(success, rating) else "rollback"
        return CanaryVerdict(action=action, reason=found, numbers=numbers)
