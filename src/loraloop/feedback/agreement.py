"""How far a judge agrees with people, with intervals that take each conversation as one observation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loraloop.feedback.statistics import LEVEL, RESAMPLES, Interval

STARS = range(1, 6)
CHUNK = 100
"""Resamples at once, so that many conversations take no more memory than few."""
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

    With one conversation there is no interval, and its ends are not numbers.
    """
    found = _sums(rated)
    drawn = _resampled(found, rng)
    total = found.sum(axis=0, keepdims=True)

    def figure(statistic: Callable[[Array], Array]) -> Interval:
        return _interval(statistic, total, drawn)

    return Agreement(
        sessions=len(rated),
        conversations=len(found),
        same=figure(_ratio(6, 0)),
        near=figure(_ratio(7, 0)),
        kappa=figure(_kappa),
        shift=figure(lambda sums: (sums[:, 2] - sums[:, 1]) / sums[:, 0]),
        calibration={each: (int(total[0, 7 + each]), figure(_ratio(12 + each, 7 + each))) for each in STARS},
    )


def preferred(right: Sequence[tuple[str, bool]], rng: np.random.Generator) -> Interval:
    """The share of pairs, each with its task, in which the judge prefers what people gave more stars."""
    sums = _by_group([task for task, _ in right], np.array([[1.0, float(each)] for _, each in right]))
    total = sums.sum(axis=0, keepdims=True)
    return _interval(_ratio(1, 0), total, _resampled(sums, rng))


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


def _interval(statistic: Callable[[Array], Array], total: Array, drawn: Array) -> Interval:
    with np.errstate(divide="ignore", invalid="ignore"):
        value, found = float(statistic(total)[0]), statistic(drawn)
    found = found[np.isfinite(found)]  # a resample may hold nothing of a score
    if not np.isfinite(value) or len(found) == 0 or (drawn == drawn[0]).all():
        return Interval(value if np.isfinite(value) else float("nan"), float("nan"), float("nan"))
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))
