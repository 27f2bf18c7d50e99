"""Two scores row by row: which answers belong to the same row, and whether one is better by more than chance."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from loraloop.core.metrics import METRICS
from loraloop.records import Generation, Score

FLIPS = 9_999
SEED = 0
"""Of the random signs, so that the same rows always have the same p."""
BATCH_VALUES = 10_000_000

Pairs = list[tuple[Generation, Generation]]


def pairs(first: Score, second: Score) -> Pairs:
    """The answers of both to the rows that both have, in the order of ``first``.

    A row is known by its task, prompt and expected answer; equal rows are paired in order, none twice.
    """
    waiting: dict[tuple[str, str, str], list[Generation]] = defaultdict(list)
    for each in reversed(second.generations):
        waiting[each.task, each.prompt, each.expected].append(each)
    found = ((each, waiting[each.task, each.prompt, each.expected]) for each in first.generations)
    return [(each, others.pop()) for each, others in found if others]


def same_rows(first: Score, second: Score) -> Pairs | None:
    """The answers of both, row by row; ``None`` if one was measured on a row that the other was not measured on."""
    found = pairs(first, second)
    return found if found and len(found) == first.rows == second.rows else None


def gains(metric: str, found: Pairs) -> list[float]:
    """For each pair, by how much the first is better; without the rows on which the metric does not apply.

    For the loss, a row's value is the sum over its tokens, so that the sum of the gains decides which loss is lower.
    For BLEU and chrF it is the score of the row alone. The turns of one conversation are not independent: their gains
    are added up.
    """
    rule = METRICS[metric]
    sign = 1 if rule.higher else -1
    sums: dict[str | int, float] = defaultdict(float)
    for place, (ours, theirs) in enumerate(found):
        one, other = rule.row(ours), rule.row(theirs)
        if one is not None and other is not None:
            sums[ours.conversation or place] += sign * (one - other)
    return list(sums.values())


def p_value(gained: Sequence[float]) -> float:
    """Probability of at least so large a sum of gains if neither were better, by a one-sided paired test.

    If neither is better, each gain is as likely to have the other sign (Fisher 1935, The Design of Experiments, section
    21). For gains of one size that is the exact test of McNemar (1947, Psychometrika 12:153); for others, signs are
    drawn at random (:data:`FLIPS` times, or all of them where there are fewer), and the observed ones count as one draw
    (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39).
    """
    from scipy.stats import binomtest, permutation_test

    moved = np.asarray([each for each in gained if each != 0], dtype=float)
    if not moved.size or not np.isfinite(moved).all():
        return 1.0
    if np.ptp(np.abs(moved)) == 0:
        return float(binomtest(int((moved > 0).sum()), moved.size, alternative="greater").pvalue)
    flipped = permutation_test(
        (moved,),
        np.sum,
        permutation_type="samples",
        alternative="greater",
        n_resamples=FLIPS,
        batch=max(1, BATCH_VALUES // moved.size),
        rng=np.random.default_rng(SEED),
    )
    return float(flipped.pvalue)


def not_worse(gained: Sequence[float], margin: float) -> float:
    """Probability of at least so large a sum of gains if the first were worse by ``margin`` (one-sided, paired).

    It is small where the first is not worse by more than ``margin``. For gains of -1, 0 and 1 it is Tango's score test
    of paired proportions (1998, Statistics in Medicine 17:891), which counts rows without a difference for no more than
    they say: of 100 equal rows, p is 0.08 at a margin of 0.02. For other gains it is the t-test of their mean; gains
    without any spread count like equal rows.

    Args:
        gained: By row or conversation, the first over the second.
        margin: Of the mean gain, above 0.
    """
    from scipy.stats import norm, ttest_1samp

    values = np.asarray(gained, dtype=float)
    if not values.size or not np.isfinite(values).all():
        return 1.0
    if np.isin(values, (-1, 0, 1)).all() and margin < 1:
        return float(norm.sf(_tango(int((values > 0).sum()), int((values < 0).sum()), values.size, margin)))
    if values.size == 1:  # it has no spread that could be told
        return 1.0
    if np.ptp(values) == 0:
        return float((1 - min(margin, 1)) ** values.size) if values.mean() > -margin else 1.0
    return float(ttest_1samp(values, -margin, alternative="greater").pvalue)


def _tango(won: int, lost: int, rows: int, margin: float) -> float:
    """Tango's statistic: ``won`` and ``lost`` of ``rows``, against a difference of ``-margin``."""
    first = 2 * rows
    second = -won - lost - (first - won + lost) * margin
    third = lost * margin * (1 + margin)
    lost_share = (math.sqrt(second**2 - 4 * first * third) - second) / (2 * first)
    return (won - lost + rows * margin) / math.sqrt(rows * (2 * lost_share - margin * (1 + margin)))
