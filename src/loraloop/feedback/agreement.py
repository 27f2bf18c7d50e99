"""How far a judge agrees with people, with intervals that take each conversation as one observation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loraloop.feedback.statistics import LEVEL, RESAMPLES, Interval, share

STARS = range(1, 6)
CHUNK = 100
"""Resamples at once, so that many conversations take no more memory than few."""
MIN_CELL = 5
"""Conversations with which people's mean stars at one score get an interval."""
ADDED = 0.5
"""How much of a conversation is added to the data for each end of kappa's interval."""
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Rated:
    """One answer that a person and the judge rated; answers of one conversation are not independent."""

    stars: int
    score: int
    conversation: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """A judge against people.

    Attributes:
        same: Share of answers with the same stars.
        near: Share within one star.
        kappa: Cohen's kappa with quadratic weights (Cohen 1968): 1 is agreement, 0 is what chance gives.
        shift: Mean of the judge's stars minus people's.
        calibration: For each score of the judge, how many answers got it and the mean of people's stars.
    """

    sessions: int
    conversations: int
    same: Interval
    near: Interval
    kappa: Interval
    shift: Interval
    calibration: dict[int, tuple[int, Interval]]


def measure(rated: Sequence[Rated], rng: np.random.Generator) -> Agreement:
    """The agreement on one or more answers; each interval is a percentile bootstrap over conversations.

    With one conversation, or where all resamples have one value, there is no interval, and its ends are not numbers.
    Two figures have another one: shares of 0 and 1 have Wilson's interval on conversations, and each end of kappa's is
    that of the data with half a conversation more.
    """
    found = _sums(rated)
    drawn = _resampled(found, rng)
    total = found.sum(axis=0, keepdims=True)

    def calibration(score: int) -> tuple[int, Interval]:
        enough = np.count_nonzero(found[:, 7 + score]) >= MIN_CELL
        return int(total[0, 7 + score]), _interval(_ratio(12 + score, 7 + score), total, drawn if enough else total)

    return Agreement(
        sessions=len(rated),
        conversations=len(found),
        same=_share(6, 0, found, drawn),
        near=_share(7, 0, found, drawn),
        kappa=_kappa_interval(found, rng),
        shift=_interval(lambda sums: (sums[:, 2] - sums[:, 1]) / sums[:, 0], total, drawn),
        calibration={each: calibration(each) for each in STARS},
    )


def preferred(right: Sequence[tuple[str, bool]], rng: np.random.Generator) -> Interval:
    """The share of pairs, each with its task, in which the judge prefers what people gave more stars."""
    sums = _by_group([task for task, _ in right], np.array([[1.0, float(each)] for _, each in right]))
    return _share(1, 0, sums, _resampled(sums, rng))


def _sums(rated: Sequence[Rated]) -> Array:
    """A row a conversation: count, stars, scores, their squares, squared differences, same, near; then by score."""
    stars = np.array([each.stars for each in rated], dtype=np.float64)
    scores = np.array([each.score for each in rated], dtype=np.float64)
    apart = np.abs(stars - scores)
    given = (scores[:, None] == np.array(STARS)).astype(np.float64)
    plain = [np.ones_like(stars), stars, scores, stars**2, scores**2, apart**2, apart == 0, apart <= 1]
    return _by_group([each.conversation for each in rated], np.column_stack([*plain, given, given * stars[:, None]]))


def _by_group(names: Sequence[str], values: Array) -> Array:
    _, group = np.unique(np.array(names, dtype=object).astype(str), return_inverse=True)
    sums = np.zeros((int(group.max()) + 1, values.shape[1]))
    np.add.at(sums, group, values)
    return sums


def _resampled(sums: Array, rng: np.random.Generator) -> Array:
    """The sums of as many conversations, drawn with replacement, in each row."""
    count = len(sums)
    shares = np.full(count, 1 / count)
    return np.concatenate([rng.multinomial(count, shares, size=CHUNK) @ sums for _ in range(RESAMPLES // CHUNK)])


def _ratio(part: int, whole: int) -> Callable[[Array], Array]:
    """The statistic that divides one column of sums by another."""
    return lambda sums: sums[:, part] / sums[:, whole]


def _kappa(sums: Array) -> Array:
    """1 - observed / expected squared difference, which is kappa with quadratic weights (Fleiss and Cohen 1973)."""
    count = sums[:, 0]
    people, judge = sums[:, 1] / count, sums[:, 2] / count
    spread = sums[:, 3] / count - people**2 + sums[:, 4] / count - judge**2
    expected = np.round(spread + (people - judge) ** 2, 12)  # 0 where both always gave the same stars
    return 1 - sums[:, 5] / count / expected


def _kappa_interval(sums: Array, rng: np.random.Generator) -> Interval:
    """Kappa, each end from a bootstrap of the data and half a conversation more.

    The data alone are not enough where most stars are the same: a resample without the few others has no kappa, and one
    bad answer that the judge recognised makes all other resamples agree. So the lower end has half a conversation more
    in which 5 meets 1 and 1 meets 5, and the upper end one in which 1 meets 1 and 5 meets 5.
    """
    total = sums.sum(axis=0, keepdims=True)
    if len(sums) == 1:
        return _interval(_kappa, total, total)
    lower, upper = (_interval(_kappa, total, _resampled(_with_half(sums, apart), rng)) for apart in (4, 0))
    return Interval(lower.value, lower.low, upper.high)


def _with_half(sums: Array, apart: int) -> Array:
    """The conversations and half of one, as long as they are on average, of 1 and 5 with scores ``apart`` from them."""
    added = np.zeros((1, sums.shape[1]))
    added[0, :6] = [1, 3, 3, 13, 13, apart**2]  # means of what `_sums` holds
    return np.concatenate([sums, added * ADDED * sums[:, 0].mean()])


def _share(part: int, whole: int, sums: Array, drawn: Array) -> Interval:
    """The share of one column in another; of 0 and 1, where all resamples are the same, with Wilson's interval."""
    found = _interval(_ratio(part, whole), sums.sum(axis=0, keepdims=True), drawn)
    if found.value in (0, 1) and len(sums) > 1:
        return share(int(found.value) * len(sums), len(sums))
    return found


def _interval(statistic: Callable[[Array], Array], total: Array, drawn: Array) -> Interval:
    """The statistic of the total, with the ends of its resamples; not numbers where those all have one value."""
    with np.errstate(divide="ignore", invalid="ignore"):
        value, found = float(statistic(total)[0]), statistic(drawn)
    found = found[np.isfinite(found)]  # a resample may hold nothing of a score
    if not np.isfinite(value) or len(found) == 0 or np.ptp(found) == 0:
        return Interval(value if np.isfinite(value) else math.nan, math.nan, math.nan)
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
