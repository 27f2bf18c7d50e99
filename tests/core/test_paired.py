"""Two scores row by row."""

from __future__ import annotations

import dataclasses
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core import paired
from loraloop.core.metrics import METRICS
from loraloop.records import Generation, Score

ROWS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy")), max_size=12)


def score(rows: list[tuple[str, str]]) -> Score:
    found = tuple(Generation("t", prompt, expected, "a", True) for prompt, expected in rows)
    return Score(rows=len(found), values={}, generations=found)


@given(ROWS, ROWS, st.randoms())
def test_rows_are_the_same_whatever_their_order_and_only_then(first, second, random):
    """Two scores have the same rows if one is a permutation of the other, repeated rows included."""
    assert (paired.same_rows(score(first), score(second)) is not None) == (sorted(first) == sorted(second) != [])
    shuffled = random.sample(first, len(first))
    assert len(paired.pairs(score(first), score(shuffled))) == len(first)


def test_a_gain_is_positive_where_the_first_is_better():
    """Each metric's gains have the sign of its direction, and rows on which it does not apply are left out."""
    calls = ("valid", "names", "arguments", "right")
    right = Generation("t", "p", "a b", "a b", True, 1.0, True, dict.fromkeys(calls, True))
    wrong = Generation("t", "p", "a b", "c", False, 2.0, False, dict.fromkeys(calls, False))
    for metric in METRICS:
        assert paired.gains(metric, [(right, wrong)])[0] > 0
        assert paired.gains(metric, [(wrong, right)])[0] < 0
    unknown = dataclasses.replace(right, nll=None, preferred=None)
    assert paired.gains("loss", [(unknown, wrong)]) == paired.gains("preference_accuracy", [(unknown, wrong)]) == []


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 5))
@settings(max_examples=40)
def test_right_and_wrong_answers_are_tested_exactly(wins, losses, ties):
    """For gains of -1, 0 and 1, p is McNemar's: so many heads of a fair coin or more, ties aside."""
    total = wins + losses
    exact = sum(comb(total, heads) for heads in range(wins, total + 1)) / 2**total
    assert paired.p_value([1.0] * wins + [-1.0] * losses + [0.0] * ties) == pytest.approx(exact)


def test_other_gains_are_tested_by_their_signs():
    """With few rows every choice of signs is counted: 1 of 8 gives three gains above 0, 8 of 8 at least the lowest."""
    assert paired.p_value([0.5, 1.5, 2.5]) == pytest.approx(1 / 8)
    assert paired.p_value([-0.5, -1.5, -2.5]) == 1
    assert paired.p_value([float("inf"), 1.0]) == paired.p_value([]) == 1


def test_a_test_at_5_percent_is_wrong_in_5_percent():
    """Of gains that are as likely positive as negative, whatever their size, about 5% have p at most 0.05."""
    rng = np.random.default_rng(1)
    found = [paired.p_value(rng.standard_t(3, 20)) <= 0.05 for _ in range(300)]
    assert 0.02 <= np.mean(found) <= 0.08


def test_to_be_not_worse_takes_rows():
    """100 equal rows do not show that less than 2% are lost, 640 do; no rows and infinite gains show nothing."""
    assert paired.not_worse([0.0] * 100, 0.02) == pytest.approx(0.0766, abs=1e-3)
    assert paired.not_worse([0.0] * 640, 0.02) < 0.001
    assert paired.not_worse([-1.0] * 64 + [0.0] * 576, 0.05) > 0.99
    assert paired.not_worse([0.01, -0.02, 0.0] * 30, 0.02) < 0.001 < 0.5 < paired.not_worse([-0.3, -0.1] * 30, 0.02)
    assert paired.not_worse([], 0.05) == paired.not_worse([float("inf")], 0.05) == 1


def test_one_row_shows_nothing():
    """A single gain has no spread, so it shows nothing however wide the margin, which for a loss may be above 1."""
    assert paired.not_worse([0.5], 5.0) == paired.not_worse([0.5], 0.05) == 1


def test_what_is_worse_by_the_margin_passes_in_5_percent():
    """Of forms that lose 5% more rows than they win, about 5% seem not worse by 0.05."""
    rng = np.random.default_rng(0)
    draws = rng.choice([1, -1, 0], p=[0.03, 0.08, 0.89], size=(400, 160))
    assert 0.02 <= np.mean([paired.not_worse(each, 0.05) <= 0.05 for each in draws]) <= 0.08
