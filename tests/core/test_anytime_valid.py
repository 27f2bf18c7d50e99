"""Bounds that hold at every look, by their definitions and by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from loraloop.core.anytime_valid import BETS, agreed, ceiling, evidence, mismatch, radius

units = st.lists(st.floats(0, 1), min_size=1, max_size=30)
means = st.floats(0.01, 0.99)
levels = st.floats(1e-4, 0.3)


def most(rate: float, runs: int) -> float:
    """What a share of ``runs`` that is ``rate`` in truth stays below, but for once in a thousand times."""
    return rate + 3.1 * (rate * (1 - rate) / runs) ** 0.5


@given(st.floats(1e-9, 1e3), st.floats(1e-3, 10), levels)
def test_the_closed_form_reaches_the_mixture(variance, scale, alpha):
    """At the radius the one-sided normal mixture, a martingale, has reached 1/alpha: the closed form is never short."""
    information, ratio = 1 / variance, 1 / scale**2
    x = radius(variance, scale, alpha) * information / np.sqrt(information + ratio)
    log_mixture = np.log(2) + np.log(ratio / (information + ratio)) / 2 + x**2 / 2 + norm.logcdf(x)
    assert log_mixture >= -np.log(alpha) - 1e-9


@given(st.floats(1e-9, 1e3), st.floats(1e-9, 1e3), st.floats(1e-3, 10), levels)
def test_less_certain_is_wider(one, other, scale, alpha):
    """The radius grows with the estimate's variance."""
    low, high = radius(np.sort([one, other]), scale, alpha)
    assert low <= high


def test_nothing_known_is_infinitely_wide():
    """An unknown variance gives no bound; an estimate without any error is its own bound."""
    assert radius([np.inf, 0.0], 0.1, 0.05).tolist() == [np.inf, 0.0]


@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_radius_holds_at_every_look(alpha):
    """Over 1,000 looks at a growing sample, the mean is outside of its radius in at most alpha of the runs."""
    runs, looks = 2000, 1000
    rng = np.random.default_rng(11)
    count = np.arange(1, looks + 1)
    error = np.cumsum(rng.normal(size=(runs, looks)), axis=1) / count
    missed = (error > radius(1 / count, 0.15, alpha)).any(axis=1).mean()
    once = (error > norm.isf(alpha) / np.sqrt(count)).any(axis=1).mean()
    assert 0.2 * alpha < missed <= most(alpha, runs)
    assert once > 3 * alpha, "an interval for one look does not hold at all of them"


@given(units, means)
def test_evidence_is_the_capital_of_the_bets(values, mean):
    """The evidence is the mean over the stakes of the product of what each bet made of each value."""
    capital = [np.prod([1 + bet * (mean - value) for value in values]) for bet in BETS]
    assert evidence(values, mean)[-1] == pytest.approx(np.log(np.mean(capital)))


@given(units, means, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(values, mean, rng):
    """The same values in another order are the same evidence in the end."""
    shuffled = rng.sample(values, len(values))
    assert evidence(shuffled, mean)[-1] == pytest.approx(evidence(values, mean)[-1], abs=1e-9)


@given(units, means, st.integers(0, 29), st.floats(0, 1))
def test_a_lower_value_is_never_less_evidence(values, mean, place, share):
    """Lowering any value does not lower the evidence that the mean is low."""
    lower = list(values)
    lower[place % len(values)] *= share
    assert evidence(lower, mean)[-1] >= evidence(values, mean)[-1] - 1e-9


@given(units, means, st.floats(0, 1))
def test_one_more_low_value_is_never_less_evidence(values, mean, share):
    """A further value below the mean in question does not lower the evidence."""
    before, after = evidence([*values, mean * share], mean)[-2:]
    assert after >= before - 1e-9


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 3)), min_size=1, max_size=20), means)
def test_agreed_evidence_is_the_least_without_a_person(rows, mean):
    """It is the least of the evidence of all and of all but each person; nobody's values are evidence of 1."""
    values, people = (np.array(each) for each in zip(*rows, strict=True))
    rest = [values[people != person] for person in {-1, *people.tolist()}]
    least = min(evidence(each, mean)[-1] if len(each) else 0.0 for each in rest)
    assert agreed(values, people, mean) == pytest.approx(least, abs=1e-9)
    assert agreed([values, values], [people, people], mean) == pytest.approx([least] * 2, abs=1e-9)
    assert ceiling(values, 0.05, people) >= ceiling(values, 0.05) - 1e-8


@given(st.lists(units, min_size=1, max_size=5), means)
def test_many_samples_are_judged_like_one(samples, mean):
    """Samples of different sizes, padded with NaN, give the same evidence together as each alone."""
    width = max(map(len, samples))
    padded = [[*values, *[np.nan] * (width - len(values))] for values in samples]
    alone = [evidence(values, mean)[-1] for values in samples]
    assert evidence(padded, np.full(len(samples), mean))[:, -1] == pytest.approx(alone)
    assert ceiling(padded, 0.05) == pytest.approx([float(ceiling(values, 0.05)) for values in samples])


@pytest.mark.parametrize("draw", ["rare", "wide", "walk"])
def test_evidence_against_the_truth_is_rare(draw):
    """Values whose expectation, given the past, is the mean reach 20-fold evidence in at most 1 of 20 runs, ever."""
    runs, looks, mean = 2000, 400, 0.7
    rng = np.random.default_rng(13)
    luck = rng.random((runs, looks))
    if draw == "rare":
        values = (luck < mean).astype(float)
    elif draw == "wide":
        values = mean + 0.3 * (2 * luck - 1)
    else:  # the expectation wanders above the mean with the past
        level = mean + 0.3 * np.abs(np.sin(np.cumsum(luck, axis=1) / 50))
        values = (rng.random((runs, looks)) < np.minimum(level, 1)).astype(float)
    reached = (evidence(values, np.full(runs, mean)) >= np.log(20)).any(axis=1).mean()
    assert reached <= most(0.05, runs)
    if draw == "rare":
        assert reached > 0.01, "the bound is not idle"


@settings(max_examples=30)
@given(units, st.floats(0.001, 0.2))
def test_the_ceiling_divides_what_is_refuted_from_what_is_not(values, alpha):
    """Means above the ceiling have the evidence against them, means below have not, and the sample's own has not."""
    top = float(ceiling(values, alpha))
    assert top >= np.mean(values) - 1e-6
    if top + 1e-6 < 1:
        assert evidence(values, top + 1e-6)[-1] >= -np.log(alpha)
    if top > 1e-6:
        assert evidence(values, top - 1e-6)[-1] < -np.log(alpha)


def test_without_values_every_mean_is_possible():
    """No observation leaves the whole range."""
    assert float(ceiling([], 0.05)) == 1.0


def test_a_fair_assignment_is_rarely_called_uneven():
    """Looking after each of 500 fair draws, 20-fold evidence of another share shows in at most 1 of 20 runs."""
    runs, draws = 2000, 500
    hits = np.cumsum(np.random.default_rng(17).random((runs, draws)) < 0.15, axis=1)
    called = (mismatch(hits, np.arange(1, draws + 1), 0.15) >= np.log(20)).any(axis=1).mean()
    assert called <= most(0.05, runs)


def test_an_uneven_assignment_is_found():
    """Twice the share is found within some hundred conversations."""
    hits = np.cumsum(np.random.default_rng(19).random((200, 300)) < 0.3, axis=1)
    assert (mismatch(hits, np.arange(1, 301), 0.15)[:, -1] >= np.log(1000)).mean() > 0.95


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.05, 0.95))
def test_the_mismatch_is_a_uniform_mixture(count, rest, share):
    """The evidence is the likelihood averaged over all probabilities, against that of the share."""
    middle = (np.arange(20_000) + 0.5) / 20_000
    averaged = np.mean(middle**count * (1 - middle) ** rest)
    wanted = np.log(averaged) - count * np.log(share) - rest * np.log1p(-share)
    assert float(mismatch(count, count + rest, share)) == pytest.approx(wanted, abs=1e-4)
