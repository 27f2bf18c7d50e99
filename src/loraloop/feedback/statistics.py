"""Shares, means and quantiles with 95% intervals, and a version's sessions summed up by them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from loraloop.records import Session

RESAMPLES = 2_000
LEVEL = 0.95
Z = 1.959963984540054
"""The normal distribution's 97.5% quantile."""
Statistic = Callable[[Any], Any]
"""Takes a matrix with a resample in each row, and returns a value for each row."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with its 95% interval."""

    value: float
    low: float
    high: float


def share(successes: int, total: int) -> Interval:
    """A share of successes with Wilson's score interval (Wilson 1927), which also holds near 0 and 1."""
    if total == 0:
        return Interval(math.nan, 0.0, 1.0)
    rate, spread = successes / total, Z * Z / total
    middle = (rate + spread / 2) / (1 + spread)
    half = Z * math.sqrt(rate * (1 - rate) / total + spread / (4 * total)) / (1 + spread)
    return Interval(rate, max(0.0, middle - half), min(1.0, middle + half))


def bootstrap(values: Sequence[float], statistic: Statistic, rng: np.random.Generator) -> Interval:
    """A statistic with its percentile bootstrap interval (Efron and Tibshirani 1993, chapter 13)."""
    if not values:
        return Interval(math.nan, math.nan, math.nan)
    found = np.asarray(values, dtype=np.float64)
    drawn = statistic(found[rng.integers(len(found), size=(RESAMPLES, len(found)))])
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(statistic(found[None, :])[0]), float(low), float(high))


def mean(values: Sequence[float], rng: np.random.Generator) -> Interval:
    """The mean."""
    return bootstrap(values, lambda rows: rows.mean(axis=1), rng)


def quantile(values: Sequence[float], at: float, rng: np.random.Generator) -> Interval:
    """The quantile at 0..1; the interval of one near the end is only as good as there are values beyond it."""
    return bootstrap(values, lambda rows: np.quantile(rows, at, axis=1), rng)


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSummary:
    """A version's sessions in numbers.

    Attributes:
        success: Share of successes among the sessions that ended; a client that left says nothing.
        rating: Mean of the stars that people gave.
        rated: How many sessions people gave stars.
        implied: Mean of the stars that sessions imply.
        issues: How many sessions people gave each issue, also those that the form had earlier.
        p50: Median latency of successful sessions, in seconds.
        p95: Its 95th percentile.
    """

    version: str
    sessions: int
    success: Interval
    rating: Interval
    rated: int
    implied: Interval
    issues: Mapping[str, int]
    p50: Interval
    p95: Interval


def summarise(version: str, sessions: Sequence[Session], rng: np.random.Generator) -> VersionSummary:
    """Summarise the sessions that ``version`` answered; each counts once, by its one rating."""
    ended = [each for each in sessions if each.status not in (None, "cancelled")]
    stars = [float(each.stars) for each in sessions if each.stars is not None]
    seconds = [each.duration for each in ended if each.success and each.duration is not None]
    return VersionSummary(
        version=version,
        sessions=len(sessions),
        success=share(sum(bool(each.success) for each in ended), len(ended)),
        rating=mean(stars, rng),
        rated=len(stars),
        implied=mean([float(each.implied) for each in sessions if each.implied is not None], rng),
        issues=Counter(issue for each in sessions for issue in set(each.issues)),
        p50=quantile(seconds, 0.5, rng),
        p95=quantile(seconds, 0.95, rng),
    )
