"""The simple trigger of ``policy=seed``: the mean of the latest ratings is low."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from loraloop.core.part import part
from loraloop.records import Outcome, Verdict
from loraloop.trigger.ratings import count, in_order, person, shortage


@part
class Plain:
    """Fires when the last sessions have enough ratings and their mean is below the threshold.

    The rule is asked at every tick and ignores chance; ``benchmarks/trigger.py`` shows how often it fires for
    no reason.

    Attributes:
        threshold: Stars.
        window: Latest sessions that count.
        min_ratings: Fewest ratings among them.
        min_raters: Fewest people who gave them; an unknown rater counts as another person in each conversation.
        per_rater: How many ratings of one person count, from the first; ``None``: all.
    """

    threshold: Annotated[float, Field(gt=1, le=5)] = 3.8
    window: Annotated[int, Field(ge=1)] = 50
    min_ratings: Annotated[int, Field(ge=1)] = 10
    min_raters: Annotated[int, Field(ge=1)] = 1
    per_rater: Annotated[int, Field(ge=1)] | None = None

    def decide(self, outcomes: Sequence[Outcome], since: str, now: str) -> Verdict:
        """Whether to train again, and the reason."""
        counts, stars = Counter[str](), []
        for _, each, given in in_order(outcomes[-self.window :]):
            counts[person(each)] += 1
            if self.per_rater is None or counts[person(each)] <= self.per_rater:
                stars.append(given)
        mean = sum(stars) / len(stars) if stars else None
        numbers = {"ratings": len(stars), "raters": len(counts), "mean": mean, "threshold": self.threshold}
        window = f"among the last {min(self.window, len(outcomes))} sessions"
        short = shortage(len(stars), len(counts), self.min_ratings, self.min_raters)
        if short is not None or mean is None:
            return Verdict(False, f"{short} ({window})", numbers)
        low = mean < self.threshold
        people = count(len(stars), len(counts))
        return Verdict(
            low,
            f"mean rating {mean:.2f} is {'' if low else 'not '}below {self.threshold:g}: {people} {window}",
            numbers,
        )
