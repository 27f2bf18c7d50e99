"""Bounds that hold however often one looks: what the loop's rules decide with.

A fixed-sample interval is wrong with the probability that it names only if it is looked at once. Each bound here is
derived from a process that is a supermartingale, starts at 1, and is never negative; Ville's inequality (Ville 1939)
then bounds by ``alpha`` the probability that it *ever* reaches ``1/alpha``. All functions work on whole arrays, so that
thousands of simulated rollouts are decided at once by the code that decides the real one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

BETS: tuple[float, ...] = (0.25, 0.5, 1.0)
"""Stakes that :func:`evidence` mixes; up to 1 no value in 0..1 can bankrupt a bet on any mean in 0..1."""


def radius(variance: ArrayLike, scale: float, alpha: float) -> Array:
    """How far the mean may be above (or below) its estimate: a one-sided asymptotic confidence sequence.

    Robbins' normal mixture over positive drifts (Robbins 1970; one-sided in Howard, Ramdas, McAuliffe and Sekhon 2021,
    section 3.2) at the information ``1/variance``, which is what the central limit theorem allows of an estimate whose
    variance is itself estimated (Waudby-Smith, Arbour, Sinha, Kennedy and Ramdas 2024). With ``v`` the information and
    ``r = 1/scale**2``, the mixture ``2 sqrt(r/(v+r)) exp(x**2/2) Phi(x)``, ``x = s/sqrt(v+r)``, is at least
    ``sqrt(r/(v+r)) (2 exp(x**2/2) - 1)``; solving that for ``1/alpha`` gives the closed form.

    Args:
        variance: Of the estimate (not of one observation).
        scale: Standard deviation of the mixture: size of the effect that it is to be sharp for.
        alpha: Probability of ever missing.
    """
    variance = np.asarray(variance, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = np.log(0.5 + np.sqrt(1 + scale**2 / variance) / (2 * alpha))
        found = np.sqrt(2 * variance * (1 + variance / scale**2) * inner)
    return np.where(variance > 0, np.where(np.isfinite(variance), found, np.inf), 0.0)


def evidence(values: ArrayLike, mean: ArrayLike, bets: Sequence[float] = BETS) -> Array:
    """Logarithm of the evidence that the mean of values in 0..1 is below ``mean``, after each of them.

    The capital of someone who bets at fair odds against a mean of at least ``mean`` (Waudby-Smith and Ramdas 2024,
    "Estimating means of bounded random variables by betting"), a mixture over fixed stakes. Where each expectation,
    given the values before, is at least ``mean``, the capital ever reaches ``1/alpha`` with a probability of at most
    ``alpha``, exactly; beyond that and the range, nothing is asked of the distribution. The stakes are fixed, so that
    the order of the values does not matter in the end and a lower value never means less evidence.

    Args:
        values: Along the last axis; NaN is no observation.
        mean: In 0..1, of the shape of ``values`` without the last axis, or one for all.
        bets: Stakes in (0, 1].
    """
    values = np.asarray(values, dtype=float)
    mean = np.asarray(mean, dtype=float)[..., None]
    gain = np.where(np.isnan(values), 0.0, mean - values)
    with np.errstate(divide="ignore"):
        return _mixture(np.stack([np.cumsum(np.log1p(bet * gain), axis=-1) for bet in bets]))


def agreed(values: ArrayLike, people: ArrayLike, mean: ArrayLike, bets: Sequence[float] = BETS) -> Array:
    """What is left of :func:`evidence` after the last value without the person on whom it rests most.

    The least of the evidence of all values and of those that remain without each one of the people; never more than
    that of all, so that it is wrong at most as often.

    Args:
        values: Along the last axis; NaN is no observation.
        people: Whose each value is, counted from 0; of the shape of ``values``.
        mean: Above 0, at most 1; of the shape of ``values`` without the last axis, or one for all.
        bets: Stakes in (0, 1].
    """
    values, people = np.asarray(values, dtype=float), np.asarray(people)
    gain = np.where(np.isnan(values), 0.0, np.asarray(mean, dtype=float)[..., None] - values)
    rows, size = values.shape[:-1], int(people.max()) + 1
    place = np.arange(np.prod(rows, dtype=int)).reshape(*rows, 1) * size + people
    sums = (np.bincount(place.ravel(), np.log1p(bet * gain).ravel(), np.prod(rows, dtype=int) * size) for bet in bets)
    each = np.stack([found.reshape(*rows, size) for found in sums])
    total = each.sum(axis=-1, keepdims=True)
    return np.asarray(_mixture(np.concatenate([total, total - each], axis=-1)).min(axis=-1))


def _mixture(logs: Array) -> Array:
    """Logarithm of the mean, along the first axis, of what ``logs`` are the logarithms of."""
    most = logs.max(axis=0)
    safe = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(safe + np.log(np.mean(np.exp(logs - safe), axis=0)))


def ceiling(values: ArrayLike, alpha: float, people: ArrayLike | None = None) -> Array:
    """Upper confidence sequence of the mean of values in 0..1, at the last of them: means above it are refuted.

    Args:
        values: Along the last axis; NaN is no observation.
        alpha: Probability of ever being too low.
        people: Whose each value is, as of :func:`agreed`: what is refuted is so without any one of them, too.
    """
    values = np.asarray(values, dtype=float)
    low, high = np.zeros(values.shape[:-1]), np.ones(values.shape[:-1])
    if values.shape[-1] == 0:
        return high
    for _ in range(30):  # halvings: to 1e-9 of the range
        middle = (low + high) / 2
        found = evidence(values, middle)[..., -1] if people is None else agreed(values, people, middle)
        refuted = found >= -np.log(alpha)
        low, high = np.where(refuted, low, middle), np.where(refuted, middle, high)
    return high


def mismatch(count: ArrayLike, total: ArrayLike, share: float) -> Array:
    """Logarithm of the evidence that ``count`` of ``total`` were not drawn with the probability ``share``.

    A uniform mixture over every other probability (Robbins 1970), which is the always-valid test of a sample ratio that
    Lindon and Malek (2022, "Anytime-valid inference for multinomial count data") derive.
    """
    from scipy.special import betaln, xlog1py, xlogy

    count, total = np.asarray(count, dtype=float), np.asarray(total, dtype=float)
    rest = total - count
    return np.asarray(betaln(count + 1, rest + 1) - xlogy(count, share) - xlog1py(rest, -share))
