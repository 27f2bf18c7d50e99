"""The default trigger: a confidence sequence shows that the mean rating is low, however often it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from loraloop.core.anytime_valid import agreed, ceiling
from loraloop.core.durations import Span, moment, span
from loraloop.core.part import part
from loraloop.records import FrozenMap, Look, Outcome, Verdict
from loraloop.trigger.ratings import Opinion, count, in_order, opinions, raters, shortage

LEAST, RANGE = 1.0, 4.0
"""The lowest rating, and the distance to the highest."""


@part
class Sequential:
    """Fires when the mean rating is shown to be below the threshold, also without any one of the raters.

    The proof is a bet (:func:`loraloop.core.anytime_valid.evidence`): while the expectation of each opinion, given
    those before it, is at least the threshold, the rule fires with a probability of at most ``alpha`` in a window,
    however often it is asked. The first rating of a conversation is its opinion, and only a person's first
    ``per_rater`` opinions count. The rule also has to fire without any one person
    (:func:`loraloop.core.anytime_valid.agreed`), so that nobody retrains a model alone under one name. The bound is
    about the opinions of these raters: a few raters need not be like the others.

    A rating counts from when it was given, not from when its session was. Windows follow each other from ``since``, so
    that a good past does not outweigh a later drop. The window before the present one is judged too, because ratings
    may have come between its last tick and its end.

    Attributes:
        threshold: Stars.
        alpha: Probability of firing without cause in a window.
        window: Length of a window.
        min_ratings: Fewest ratings in a window before it fires.
        min_raters: Fewest people who gave them; an unknown rater counts as another person in each conversation.
        per_rater: How many opinions of one person count in a window, from the first; ``None``: all.
    """

    threshold: Annotated[float, Field(gt=1, le=5)] = 3.8
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    window: Span = "7d"
    min_ratings: Annotated[int, Field(ge=1)] = 10
    min_raters: Annotated[int, Field(ge=1)] = 3
    per_rater: Annotated[int, Field(ge=1)] | None = 20

    def fires(self, stars: ArrayLike, people: ArrayLike) -> NDArray[np.bool_]:
        """Whether the mean is shown to be below the threshold after the last rating, also without any one person.

        Args:
            stars: Ratings of a window along the last axis; NaN is no rating.
            people: Who gave each, counted from 0; of the same shape.
        """
        below = agreed((np.asarray(stars) - LEAST) / RANGE, people, (self.threshold - LEAST) / RANGE)
        return np.asarray(below >= -np.log(self.alpha))

    def reads(self, since: str, now: str) -> Look:
        """The sessions that were rated in the present window or the one before."""
        first, length = moment(since), span(self.window)
        return Look(rated_since=max(first, self._present(since, now) - length).isoformat(timespec="milliseconds"))

    def decide(self, outcomes: Sequence[Outcome], since: str, now: str) -> Verdict:
        """Whether to train again, and the reason."""
        first, last, length = moment(since), moment(now), span(self.window)
        present = self._present(since, now)
        ratings = [rating for rating in in_order(outcomes) if rating[0] <= last]
        found = opinions((rating for rating in ratings if rating[0] >= present), self.per_rater)
        verdict = self._judge(found, present, f"since {present:%Y-%m-%d %H:%M}")
        if verdict.passed or present == first:
            return verdict
        before = present - length
        found = opinions((rating for rating in ratings if before <= rating[0] < present), self.per_rater)
        ended = self._judge(found, before, f"from {before:%Y-%m-%d %H:%M} to {present:%Y-%m-%d %H:%M}")
        return ended if ended.passed else verdict

    def _present(self, since: str, now: str) -> datetime:
        """When the present window began."""
        first, length = moment(since), span(self.window)
        return first + max(0, (moment(now) - first) // length) * length

    def _judge(self, found: Sequence[Opinion], began: datetime, window: str) -> Verdict:
        stars, people = np.array([each.stars for each in found]), raters(found)
        _, places = np.unique([each.rater for each in found], return_inverse=True)
        numbers = self._numbers(stars, places) | {
            "raters": people,
            "threshold": self.threshold,
            "alpha": self.alpha,
            "window_began": began.isoformat(timespec="seconds"),
        }
        short = shortage(len(found), people, self.min_ratings, self.min_raters)
        if short is not None:
            return Verdict(False, f"{short} ({window})", numbers)
        low = bool(self.fires(stars, places))
        return Verdict(low, f"{self._reason(low, numbers)}: {count(len(found), people)} {window}", numbers)

    def _numbers(self, stars: NDArray[np.float64], people: NDArray[np.intp]) -> dict[str, Any]:
        share = (stars - LEAST) / RANGE
        return {
            "ratings": len(stars),
            "mean": float(stars.mean()) if len(stars) else None,
            "lower": LEAST + RANGE * (1 - float(ceiling(1 - share, self.alpha))),
            "upper": LEAST + RANGE * float(ceiling(share, self.alpha)),
            "upper_without_one": LEAST + RANGE * float(ceiling(share, self.alpha, people)),
        }

    def _reason(self, low: bool, numbers: FrozenMap) -> str:
        sure = f"{100 * (1 - self.alpha):g}% at every look"
        known = f"mean rating {numbers['mean']:.2f}, at most {numbers['upper']:.3f} ({sure}), is"
        if not low and numbers["upper"] < self.threshold:
            without = f"without the ratings of one person (then at most {numbers['upper_without_one']:.3f})"
            return f"{known} not shown to be below {self.threshold:g} {without}, so that more people have to rate"
        return f"{known} {'' if low else 'not shown to be '}below {self.threshold:g}"
