"""The default rule: a confidence sequence shows that the mean rating is low, however often one looks."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from loraloop.durations import Span, moment, span
from loraloop.part import part
from loraloop.records import Decision, Outcome
from loraloop.sequential import ceiling, evidence
from loraloop.trigger.ratings import count, opinions, raters, shortage

LEAST, RANGE = 1.0, 4.0
"""Of the stars."""


@part
class Sequential:
    """Fires when the mean rating is below the threshold beyond reasonable doubt.

    The doubt is that of a bet (:func:`loraloop.sequential.evidence`): while people are on the mean at least as content
    as the threshold, it fires with a probability of at most ``alpha`` in a window, at whatever times it is asked, and
    whatever the ratings' distribution or drift. One person's ratings of one conversation are one observation, and only
    the first ``per_rater`` of a person count: nobody can retrain a model alone. What is bounded is the doubt about how
    content these people are, not about who they are: a few raters with a mood of their own speak for themselves.
    Windows follow each other from when the version began to reign, so that a good past does not outweigh a later drop.

    Attributes:
        threshold: Stars.
        alpha: Probability of firing for nothing in a window.
        window: Length of a window.
        min_ratings: Fewest ratings in a window before it fires.
        min_raters: Fewest people who gave them; who is not known is a person in each conversation.
        per_rater: Most ratings of one person in a window that count, the first ones; ``None`` is any number.
    """

    threshold: Annotated[float, Field(gt=1, le=5)] = 3.8
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    window: Span = "7d"
    min_ratings: Annotated[int, Field(ge=1)] = 10
    min_raters: Annotated[int, Field(ge=1)] = 3
    per_rater: Annotated[int, Field(ge=1)] | None = 20

    def fires(self, stars: ArrayLike) -> NDArray[np.bool_]:
        """After each rating whether the mean is shown to be below the threshold; NaN is no rating.

        Args:
            stars: Ratings of a window along the last axis.
        """
        below = evidence((np.asarray(stars) - LEAST) / RANGE, (self.threshold - LEAST) / RANGE)
        return np.asarray(below >= -np.log(self.alpha))

    def decide(self, outcomes: Sequence[Outcome], since: str, now: str) -> Decision:
        """Whether to train again, and why or why not yet."""
        began = self._began(moment(since), moment(now))
        rated = (each for each in outcomes if each.stars is not None)
        found = opinions((each for each in rated if began <= moment(each.time) <= moment(now)), self.per_rater)
        stars, people = np.array([each.stars for each in found]), raters(found)
        numbers: dict[str, Any] = {
            "ratings": len(found),
            "raters": people,
            "mean": float(stars.mean()) if found else None,
            "lower": self._lower(stars),
            "upper": self._upper(stars),
            "threshold": self.threshold,
            "alpha": self.alpha,
            "window_began": began.isoformat(timespec="seconds"),
        }
        window = f"since {began:%Y-%m-%d %H:%M}"
        short = shortage(len(found), people, self.min_ratings, self.min_raters)
        if short is not None:
            return Decision(False, f"{short} ({window})", numbers)
        low = bool(self.fires(stars)[-1])
        sure = f"{100 * (1 - self.alpha):g}% at every look"
        reason = (
            f"mean rating {numbers['mean']:.2f}, at most {numbers['upper']:.3f} ({sure}), "
            f"is {'' if low else 'not shown to be '}below {self.threshold:g}: {count(len(found), people)} {window}"
        )
        return Decision(low, reason, numbers)

    def _began(self, since: datetime, now: datetime) -> datetime:
        """The beginning of the window that ``now`` is in."""
        length = span(self.window)
        return since + max(0, (now - since) // length) * length

    def _upper(self, stars: NDArray[np.float64]) -> float:
        return LEAST + RANGE * float(ceiling((stars - LEAST) / RANGE, self.alpha))

    def _lower(self, stars: NDArray[np.float64]) -> float:
        return LEAST + RANGE * (1 - float(ceiling(1 - (stars - LEAST) / RANGE, self.alpha)))
