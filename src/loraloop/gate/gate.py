"""The gate: an adapter that does not beat what it would replace, by a margin, is not promoted."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from loraloop.core.metrics import METRICS
from loraloop.core.part import part
from loraloop.core.suggest import nearest
from loraloop.records import Score, Verdict

Reference = Literal["base", "champion"]
DECIMALS = 9
"""Gains are compared after rounding: 0.95 - 0.93 is 0.0199999999999999 in binary, and is meant to reach 0.02."""


@part
class Gate:
    """Passes a candidate that beats every reference in ``against`` by ``margin`` on the same held-out rows.

    Attributes:
        metric: Name in :data:`loraloop.core.metrics.METRICS`.
        margin: Smallest gain: a difference in the metric's own unit, or for a metric of which less is better, whose
            scale depends on the data, the share of the reference's value by which the candidate is lower.
        against: Whom to beat; a champion that does not exist yet is passed over.
        min_rows: Fewest held-out rows on which a verdict stands.
    """

    metric: str = "task_accuracy"
    margin: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    against: Annotated[tuple[Reference, ...], Field(min_length=1)] = ("base", "champion")
    min_rows: Annotated[int, Field(ge=1)] = 20

    @field_validator("metric")
    @classmethod
    def _known(cls, metric: str) -> str:
        if metric not in METRICS:
            raise ValueError(f"there is no such metric{nearest(metric, METRICS)}: choose one of {', '.join(METRICS)}")
        return metric

    def decide(self, candidate: Score, base: Score, champion: Score | None = None) -> Verdict:
        """Judge ``candidate``; whatever cannot be compared (NaN, too few rows, other rows) does not pass."""
        scores = {"base": base, "champion": champion}
        references: dict[str, Score] = {name: score for name in self.against if (score := scores[name]) is not None}
        numbers = self._numbers(candidate, references)
        problem = self._incomparable(candidate, references)
        if problem is not None:
            return Verdict(False, problem, numbers)
        gains = {name: self._gain(candidate, score) for name, score in references.items()}
        beaten = {name: gain > 0 and gain >= self._asked for name, gain in gains.items()}
        return Verdict(all(beaten.values()), self._reason(candidate, references, gains, beaten), numbers)

    @property
    def _asked(self) -> float:
        return round(self.margin, DECIMALS)

    def _value(self, score: Score) -> float:
        return score.values.get(self.metric, math.nan)

    def _gain(self, candidate: Score, reference: Score) -> float:
        ours, theirs = self._value(candidate), self._value(reference)
        gain = ours - theirs
        if not METRICS[self.metric].higher:
            gain = -gain / theirs if theirs > 0 else -gain
        return round(gain, DECIMALS)

    def _incomparable(self, candidate: Score, references: dict[str, Score]) -> str | None:
        everyone = {"candidate": candidate, **references}
        for name, score in everyone.items():
            if self.metric not in score.values:
                return f"{self.metric} of the {name} was not measured, so nothing can be compared"
            if not math.isfinite(self._value(score)):
                return f"{self.metric} of the {name} is {self._value(score)}, which cannot be compared"
        rows = {name: score.rows for name, score in everyone.items()}
        if min(rows.values()) < self.min_rows:
            return f"measured on {min(rows.values())} rows, fewer than gate.min_rows={self.min_rows}"
        if len(set(rows.values())) > 1:
            counts = ", ".join(f"{name} {count}" for name, count in rows.items())
            return f"not measured on the same held-out rows ({counts})"
        return None

    def _reason(
        self, candidate: Score, references: dict[str, Score], gains: dict[str, float], beaten: dict[str, bool]
    ) -> str:
        head = f"{self.metric} {_number(self._value(candidate))}"
        if not references:
            return f"{head}: there is no champion to beat yet"
        parts = [
            f"{'beats' if beaten[name] else 'does not beat'} {name} {_number(self._value(score))}, "
            f"{self._against(gains[name])}"
            for name, score in references.items()
        ]
        return f"{head} {' and '.join(parts)}"

    def _against(self, gain: float) -> str:
        asked = self._asked
        if gain <= 0:
            return f"no gain where {_number(asked)} is asked for"
        # More digits where four would show two different numbers as the same.
        digits = 4 if gain == asked or _number(gain) != _number(asked) else 12
        return f"by {gain:.{digits}g} {'>=' if gain >= asked else '<'} {asked:.{digits}g}"

    def _numbers(self, candidate: Score, references: dict[str, Score]) -> dict[str, Any]:
        numbers: dict[str, Any] = {"metric": self.metric, "margin": self.margin, "rows": candidate.rows}
        numbers["candidate"] = self._value(candidate)
        for name, score in references.items():
            numbers[name] = self._value(score)
            numbers |= {f"{name}/{key}": value for key, value in _paired(candidate, score).items()}
        return numbers


def _paired(candidate: Score, reference: Score) -> dict[str, float]:
    """Exact one-sided McNemar test (McNemar 1947) over the answers that both gave to the same prompts.

    Returns:
        ``wins`` and ``losses`` (only the candidate is right, only the reference is) and ``p``, the probability of at
        least so many wins if neither were better; nothing when the answers are not of the same prompts.
    """
    pairs = list(zip(candidate.generations, reference.generations, strict=False))
    same = len(candidate.generations) == len(reference.generations)
    if not pairs or not same or any((ours.prompt, ours.task) != (base.prompt, base.task) for ours, base in pairs):
        return {}
    wins = sum(ours.correct and not theirs.correct for ours, theirs in pairs)
    losses = sum(theirs.correct and not ours.correct for ours, theirs in pairs)
    discordant = wins + losses
    # P(at least so many wins) = P(at most so many losses) of a fair coin; the smaller sum is the cheaper.
    tail = sum(math.comb(discordant, count) for count in range(losses + 1))
    return {"wins": wins, "losses": losses, "p": tail / 2**discordant}


def _number(value: float) -> str:
    return f"{value:.4g}"
