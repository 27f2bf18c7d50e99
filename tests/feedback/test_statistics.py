"""Intervals, and what sessions say about a version."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings, strategies

from loraloop.feedback import statistics
from loraloop.records import Rating, Session


@settings(deadline=None)
@given(data=strategies.data(), total=strategies.integers(1, 500))
def test_wilson(data, total):
    """The interval of a share is scipy's own Wilson interval."""
    from scipy.stats import binomtest

    successes = data.draw(strategies.integers(0, total))
    theirs = binomtest(successes, total).proportion_ci(method="wilson")
    ours = statistics.share(successes, total)
    assert (ours.value, ours.low, ours.high) == pytest.approx((successes / total, theirs.low, theirs.high), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(values=strategies.lists(strategies.floats(-1e3, 1e3), min_size=1, max_size=40), seed=strategies.integers(0, 99))
def test_the_bootstrap(values, seed):
    """A mean lies in its interval's range of values, and the same seed gives the same interval."""
    first, second = (statistics.mean(values, np.random.default_rng(seed)) for _ in range(2))
    assert first == second
    assert first.value == pytest.approx(np.mean(values))
    assert min(values) - 1e-9 <= first.low <= first.high <= max(values) + 1e-9


def test_the_bootstrap_is_as_wide_as_the_theory():
    """For many normal values the interval of the mean has the width of 2 x 1.96 standard errors, within 10%."""
    values = np.random.default_rng(0).normal(size=400).tolist()
    found = statistics.mean(values, np.random.default_rng(1))
    assert found.high - found.low == pytest.approx(2 * statistics.Z * np.std(values) / 20, rel=0.1)


def session(number, status, stars=None, implied=None, duration=1.0, issues=()):
    rating = None if stars is None else Rating(stars=stars, issues=issues)
    return Session(id=str(number), prompt="p", status=status, duration=duration, rating=rating, implied=implied)


def test_a_version_by_its_sessions():
    """Success counts ended sessions, ratings stay apart by kind, issues are counted, latency is that of successes."""
    sessions = [
        session(1, "ok", stars=5, implied=5, duration=1.0, issues=("wrong_queue",)),
        session(2, "ok", implied=4, duration=3.0),
        session(3, "error", stars=1, implied=1, duration=90.0, issues=("timeout", "wrong_queue")),
        session(4, "cancelled"),
    ]
    found = statistics.summarise("ocr@7", sessions, np.random.default_rng(0))
    assert (found.sessions, found.rated) == (4, 2)
    assert found.success == statistics.share(2, 3)
    assert found.issues == {"timeout": 1, "wrong_queue": 2}
    assert (found.rating.value, found.implied.value, found.p50.value) == (3.0, pytest.approx(10 / 3), 2.0)


def test_a_version_without_sessions():
    """Nothing is known of a version that has not answered, and that is what the figures say."""
    found = statistics.summarise("ocr@8", [], np.random.default_rng(0))
    assert found.sessions == 0
    assert all(math.isnan(each.value) for each in (found.success, found.rating, found.implied, found.p50))
