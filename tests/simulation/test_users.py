"""Made-up users are what they are said to be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from loraloop.simulation.users import STARS, Answers, Quality, SimulatedUsers, Visits, chances

GOOD, POOR = Quality(success=0.985, stars=4.25), Quality(success=0.7, stars=3.0)


def come(users: SimulatedUsers, runs: int = 200, ticks: int = 20, seed: int = 3) -> tuple[Visits, Answers]:
    visits = users.visit(runs, ticks, np.random.default_rng(seed))
    return visits, users.answer(visits, GOOD, POOR, np.zeros(visits.mood.shape, dtype=bool))


@given(st.floats(1.2, 4.9))
def test_ratings_have_the_mean_that_is_asked_for(mean):
    """The probabilities of 1 to 5 stars add up to one, are positive, and have the mean."""
    found = chances(mean)
    assert found.sum() == pytest.approx(1)
    assert found @ STARS == pytest.approx(mean, abs=1e-6)
    assert (found > 0).all()


@pytest.mark.parametrize("mean", [3.45, 3.7, 4.1, 4.25])
def test_ratings_scatter_as_peoples_do(mean):
    """At the means of the benchmarks, the standard deviation is between one star and one and a half."""
    found = chances(mean)
    assert 1.0 < (found @ STARS**2 - mean**2) ** 0.5 < 1.45


def test_a_version_is_as_good_as_it_is_said_to_be():
    """Success rates and mean ratings of many sessions are the qualities'."""
    visits, answers = come(SimulatedUsers())
    assert answers.success.mean() == pytest.approx(GOOD.success, abs=0.002)
    assert answers.stars.mean() == pytest.approx(GOOD.stars, abs=0.01)
    poor = SimulatedUsers().answer(visits, GOOD, POOR, np.ones(visits.mood.shape, dtype=bool))
    assert poor.success.mean() == pytest.approx(POOR.success, abs=0.004)
    assert poor.stars.mean() == pytest.approx(POOR.stars, abs=0.01)


def test_what_fails_is_rated_worst():
    """The sessions that fail are those that get the fewest stars."""
    _, answers = come(SimulatedUsers())
    assert answers.stars[~answers.success].max() <= answers.stars[answers.success].min() + 1


@pytest.mark.parametrize("icc", [0.0, 0.3])
def test_sessions_of_a_conversation_resemble_each_other(icc):
    """The correlation of neighbours within a conversation is the one asked for, across conversations there is none."""
    visits, answers = come(SimulatedUsers(talk=4, talk_icc=icc), runs=500)
    same = visits.talk[..., 1:] == visits.talk[..., :-1]
    before, after = answers.stars[..., :-1], answers.stars[..., 1:]
    assert same.mean() == pytest.approx(0.75, abs=0.01)
    assert np.corrcoef(before[same], after[same])[0, 1] == pytest.approx(icc, abs=0.02)
    assert np.corrcoef(before[~same], after[~same])[0, 1] == pytest.approx(0, abs=0.02)


def test_a_persons_sessions_resemble_each_other():
    """The correlation of two sessions of a person is the one asked for."""
    visits, answers = come(SimulatedUsers(raters=2, rater_icc=0.2), runs=4000, ticks=1)
    before, after = answers.stars[:, 0, :-1], answers.stars[:, 0, 1:]
    same = visits.rater[:, 0, :-1] == visits.rater[:, 0, 1:]
    assert np.corrcoef(before[same], after[same])[0, 1] == pytest.approx(0.2, abs=0.02)


def test_hostile_people_give_one_star():
    """A fifth of the people give one star to everything, whatever comes of their sessions."""
    visits, answers = come(SimulatedUsers(hostile=0.2, raters=10))
    assert visits.hostile.mean() == pytest.approx(0.2, abs=0.01)
    assert (answers.stars[visits.hostile] == 1).all()
    assert answers.success[visits.hostile].mean() > 0.95


def test_only_a_share_is_rated():
    """Sessions that nobody rates have no stars."""
    _, answers = come(SimulatedUsers(rated=0.18))
    assert np.isfinite(answers.stars).mean() == pytest.approx(0.18, abs=0.005)


def test_ratings_drift():
    """The mean rating changes by the drift from the first tick to the last."""
    _, answers = come(SimulatedUsers(drift=-0.6), runs=2000, ticks=3)
    means = answers.stars.mean(axis=(0, 2))
    assert means[[0, 2]] == pytest.approx([4.25, 3.65], abs=0.02)


def test_one_seed_gives_the_same_users():
    """The same seed gives the same people, another seed others."""
    one, again, other = (come(SimulatedUsers(talk=3, talk_icc=0.2), runs=5, seed=seed)[1].stars for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("changes", [{"rated": 0}, {"talk": 0.5}, {"talk_icc": 1}, {"hostile": 1.1}, {"sessions": 0}])
def test_impossible_people(changes):
    """Shares and correlations outside of their bounds are refused."""
    with pytest.raises(ValidationError, match=next(iter(changes))):
        replace(SimulatedUsers(), **changes)
