"""How far a judge agrees with people."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.feedback.agreement import Rated, measure, preferred

STARS = st.integers(1, 5)


def noisy(rng, count, flip=0.3, of=1):
    """Answers, ``of`` in a conversation, whose score is people's stars but for a share that is drawn anew."""
    stars = rng.integers(1, 6, count)
    scores = np.where(rng.random(count) < flip, rng.integers(1, 6, count), stars)
    pairs = zip(stars, scores, strict=True)
    return [Rated(int(one), int(two), f"c{at // of}") for at, (one, two) in enumerate(pairs)]


@settings(max_examples=25)
@given(st.lists(st.tuples(STARS, STARS), min_size=2, max_size=30).filter(lambda found: len(set(sum(found, ()))) > 1))
def test_kappa_is_that_of_the_table_of_counts(found):
    """The weighted kappa of moments equals Cohen's, of observed and expected counts, for whichever ratings."""
    counts = np.zeros((5, 5))
    for one, two in found:
        counts[one - 1, two - 1] += 1
    chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / len(found)
    weights = (np.arange(5)[:, None] - np.arange(5)) ** 2
    expected = 1 - (weights * counts).sum() / (weights * chance).sum()
    measured = measure([Rated(a, b, str(at)) for at, (a, b) in enumerate(found)], np.random.default_rng(0))
    assert measured.kappa.value == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_the_figures_of_a_few_answers():
    """Shares, shift, and people's mean stars by score are those that one counts by hand."""
    rated = [Rated(5, 5, "a"), Rated(4, 5, "b"), Rated(1, 3, "c"), Rated(2, 2, "d")]
    found = measure(rated, np.random.default_rng(0))
    assert (found.sessions, found.conversations) == (4, 4)
    assert (found.same.value, found.near.value, found.shift.value) == (0.5, 0.75, 0.75)
    means = {score: (count, stars.value) for score, (count, stars) in found.calibration.items() if count}
    assert means == {2: (1, 2.0), 3: (1, 1.0), 5: (2, 4.5)}
    assert math.isnan(found.calibration[4][1].value)


def test_a_conversation_is_one_observation():
    """Ten copies of every answer within its conversation leave the interval as wide as it was."""
    rng = np.random.default_rng(1)
    rated = noisy(rng, 60)
    once, often = (measure(each, np.random.default_rng(2)) for each in (rated, rated * 10))
    assert often.sessions == 10 * once.sessions
    assert often.conversations == once.conversations
    for name in ("same", "kappa", "shift"):
        one, ten = getattr(once, name), getattr(often, name)
        assert (ten.value, ten.low, ten.high) == pytest.approx((one.value, one.low, one.high))


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """Of 100 drawn sets of conversations of two answers, the 95% interval holds the true share in 88 or more."""
    rng = np.random.default_rng(3)
    truth = 0.7 + 0.3 / 5
    found = [measure(noisy(rng, 160, of=2), rng).same for _ in range(100)]
    assert sum(each.low <= truth <= each.high for each in found) >= 88


def test_what_cannot_be_known_is_no_number():
    """One conversation has no interval, and where both always gave the same stars there is no kappa."""
    one = measure([Rated(5, 4, "a"), Rated(3, 3, "a")], np.random.default_rng(0))
    assert one.same.value == 0.5
    assert math.isnan(one.same.low)
    same = measure([Rated(5, 5, "a"), Rated(5, 5, "b")], np.random.default_rng(0))
    assert math.isnan(same.kappa.value)
    assert same.same.value == 1


def test_preferences_are_counted_by_task():
    """The share of pairs in which the judge prefers as people, with an interval over tasks."""
    found = preferred([("a", True), ("a", True), ("b", False), ("c", True)], np.random.default_rng(0))
    assert found.value == 0.75
    assert found.low <= 0.75 <= found.high
