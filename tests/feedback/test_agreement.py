"""How far a judge agrees with people."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.feedback.agreement import Rated, measure, preferred
from loraloop.feedback.statistics import share

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


def drawn_kappa(chances, count, rng):
    """Of 100 sets of ``count`` conversations, drawn with these chances of (stars, score): kappa, and the true one."""
    pairs, chance = np.array(list(chances)), np.array(list(chances.values()))
    apart = (pairs[:, 0] - pairs[:, 1]) ** 2 @ chance
    by_chance = chance @ (pairs[:, 0][:, None] - pairs[:, 1]) ** 2 @ chance
    found = []
    for _ in range(100):
        drawn = pairs[rng.choice(len(pairs), count, p=chance)]
        found.append(measure([Rated(int(one), int(two), str(at)) for at, (one, two) in enumerate(drawn)], rng).kappa)
    return [each for each in found if not math.isnan(each.value)], 1 - apart / by_chance


@pytest.mark.parametrize(
    "chances",
    [
        {(5, 5): 0.9, (1, 1): 0.05, (1, 5): 0.05},
        {(5, 5): 0.88, (5, 1): 0.02, (1, 1): 0.06, (1, 5): 0.04},
        {(5, 5): 0.5, (4, 4): 0.2, (4, 5): 0.1, (3, 3): 0.05, (1, 1): 0.1, (1, 5): 0.05},
    ],
    ids=["half of the bad", "false alarms", "lenient"],
)
def test_kappa_is_not_overstated_on_few_answers_most_of_which_are_good(chances):
    """With 20 conversations the true kappa is below the interval in at most 5 of 100 sets, and above it in as many."""
    found, truth = drawn_kappa(chances, 20, np.random.default_rng(4))
    assert sum(each.low > truth for each in found) <= 5
    assert sum(each.high < truth for each in found) <= 5


def test_one_bad_answer_that_the_judge_recognised_shows_no_agreement():
    """Nineteen good answers and a bad one, with the same score each: kappa is 1, and may as well be 0."""
    rated = [Rated(5, 5, str(at)) for at in range(19)] + [Rated(1, 1, "bad")]
    found = measure(rated, np.random.default_rng(0)).kappa
    assert found.value == 1
    assert found.low < 0.1


def test_shares_of_all_and_none_have_an_interval():
    """Where all or no conversations agree, or all pairs, the interval is Wilson's on conversations or tasks."""
    rated = [Rated(each, each, "abcd"[at // 2]) for at, each in enumerate((1, 2, 3, 4, 5, 5, 4, 3))]
    found = measure(rated, np.random.default_rng(0))
    assert found.same == found.near == share(4, 4)
    assert math.isnan(found.shift.low)
    none = measure([Rated(1, 5, str(at)) for at in range(6)], np.random.default_rng(0))
    assert none.same == none.near == share(0, 6)
    assert preferred([(task, True) for task in "aabcde"], np.random.default_rng(0)) == share(5, 5)


def test_mean_stars_of_few_conversations_have_no_interval():
    """At a score that four conversations got there is a mean without an interval; with five there is one."""
    given = {4: (3, 4, 5, 4), 5: (3, 4, 5, 4, 5)}
    rated = [Rated(one, score, f"{score}{at}") for score, stars in given.items() for at, one in enumerate(stars)]
    found = measure(rated, np.random.default_rng(0)).calibration
    assert (found[4][0], found[4][1].value, math.isnan(found[4][1].low)) == (4, 4.0, True)
    assert found[5][1].low < found[5][1].value < found[5][1].high


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
