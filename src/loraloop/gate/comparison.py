"""A candidate beside one reference: the gain, and whether chance gives as much."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from loraloop.core import paired
from loraloop.core.metrics import METRICS
from loraloop.records import Score

DECIMALS = 9
"""Gains are compared after rounding: 0.95 - 0.93 is 0.0199999999999999 in binary, and is meant to reach 0.02."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A candidate beside one reference.

    Attributes:
        wins: Rows on which the candidate is better.
        losses: Rows on which the reference is better.
        p: Of the paired test.
    """

    gain: float
    wins: int
    losses: int
    p: float


def compare(metric: str, candidate: Score, reference: Score) -> Comparison:
    """The candidate's gain over the reference on the rows that both have."""
    gained = paired.gains(metric, paired.pairs(candidate, reference))
    wins, losses = (sum(sign * each > 0 for each in gained) for sign in (1, -1))
    return Comparison(gain(metric, candidate, reference), wins, losses, paired.p_value(gained))


def not_worse(metric: str, candidate: Score, reference: Score, margin: float) -> float:
    """The p of :func:`loraloop.core.paired.not_worse` for a candidate on the rows that both have.

    Args:
        metric: Of the comparison.
        candidate: What may be worse.
        reference: Measured on the same rows.
        margin: In the unit of :func:`gain`: of the metric, or where less is better, a share of the reference's value.
    """
    found = paired.pairs(candidate, reference)
    gained = paired.gains(metric, found)
    rule = METRICS[metric]
    values = [each for _, theirs in found if (each := rule.row(theirs)) is not None]
    allowed = margin * (len(values) if rule.higher else math.fsum(values))
    return paired.not_worse(gained, allowed / len(gained)) if gained else 1.0


def gain(metric: str, candidate: Score, reference: Score) -> float:
    """A difference in the metric's unit; where less is better, the share by which the candidate is lower."""
    ours, theirs = value(metric, candidate), value(metric, reference)
    found = ours - theirs
    if not METRICS[metric].higher:
        found = -found / theirs if theirs > 0 else -found
    return round(found, DECIMALS)


def value(metric: str, score: Score) -> float:
    """What was measured; NaN where nothing was."""
    return score.values.get(metric, math.nan)


def without_examples(few_shot: Score, candidate: Score) -> Score:
    """The few-shot score with the candidate's prompts, so that its rows are known as the same ones.

    Its own prompts hold examples. Both were measured in one run, in the same order; a score that is not in the order of
    the candidate's expected answers stays as it is.
    """
    ours, theirs = candidate.generations, few_shot.generations
    if [(each.task, each.expected) for each in ours] != [(each.task, each.expected) for each in theirs]:
        return few_shot
    asked = tuple(replace(each, prompt=own.prompt) for own, each in zip(ours, theirs, strict=True))
    return replace(few_shot, generations=asked)
