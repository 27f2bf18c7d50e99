"""The gate's rule, its sentences and its numbers."""

import dataclasses
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loraloop.core.metrics import METRICS
from loraloop.gate.gate import Gate
from loraloop.records import Generation, Score


def score(value: float, metric: str = "task_accuracy", rows: int = 100, answers: str = "") -> Score:
    values = dict.fromkeys(METRICS, 0.5)
    values |= {"loss": 1.0, "perplexity": math.e, metric: value}
    generations = tuple(Generation("count", f"p{i}", "x", "x", mark == "+") for i, mark in enumerate(answers))
    return Score(rows=rows, generations=generations, values=values)


rates = st.floats(0, 1)
losses = st.floats(1e-3, 50)
margins = st.floats(1e-6, 0.5)


def test_every_headline_metric_may_be_gated_on():
    """The metrics that the gate accepts are exactly those that can be measured."""
    for metric in METRICS:
        assert Gate(metric=metric).metric == metric
    with pytest.raises(ValidationError, match="task_accuracy"):
        Gate(metric="accuracy")


def test_passing_says_how_far_each_reference_is_beaten():
    """A pass names base and champion, their values and the gains in one sentence."""
    decision = Gate().decide(score(0.93), score(0.0), score(0.9))
    assert decision.passed
    assert decision.reason == "task_accuracy 0.93 beats base 0, by 0.93 >= 0.02 and beats champion 0.9, by 0.03 >= 0.02"


def test_a_reigning_champion_is_not_replaced_by_less_than_the_margin():
    """Beating the base is not enough when the champion is beaten by less than the margin, and the reason says so."""
    decision = Gate().decide(score(0.93), score(0.1), score(0.92))
    assert not decision.passed
    assert decision.reason.endswith("does not beat champion 0.92, by 0.01 < 0.02")


def test_a_gain_of_exactly_the_margin_passes():
    """0.95 against 0.93 reaches a margin of 0.02 although the binary difference falls short of it."""
    assert Gate(against=("base",)).decide(score(0.95), score(0.93)).passed


def test_loss_falls_and_its_margin_is_a_share():
    """For loss, lower is better and 0.1 means ten percent below the reference."""
    gate = Gate(metric="loss", margin=0.1)
    assert gate.decide(score(1.8, "loss"), score(2.0, "loss")).passed
    assert not gate.decide(score(1.9, "loss"), score(2.0, "loss")).passed
    assert not gate.decide(score(0.1, "loss"), score(0.0, "loss")).passed


def test_without_a_champion_only_the_base_is_to_beat():
    """A champion that does not exist is passed over, and a gate against it alone says that there is none."""
    assert Gate().decide(score(0.5), score(0.1), None).passed
    alone = Gate(against=("champion",)).decide(score(0.5), score(0.9), None)
    assert alone.passed
    assert alone.reason == "task_accuracy 0.5: there is no champion to beat yet"


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("who", ["candidate", "base", "champion"])
def test_numbers_that_cannot_be_compared_never_pass(broken, who):
    """NaN or infinity in any of the three scores fails the gate and the reason names whose it is."""
    scores = {"candidate": score(1.0), "base": score(0.0), "champion": score(0.0), who: score(broken)}
    decision = Gate(margin=0).decide(**scores)
    assert not decision.passed
    assert who in decision.reason


def test_a_verdict_needs_enough_rows():
    """A perfect candidate on 19 rows does not pass where 20 are asked for, also without anybody to beat."""
    few = Gate(min_rows=20)
    assert few.decide(score(1, rows=19), score(0, rows=19)).reason == "measured on 19 rows, fewer than gate.min_rows=20"
    assert not Gate(min_rows=20, against=("champion",)).decide(score(1, rows=19), score(0)).passed
    assert few.decide(score(1, rows=20), score(0, rows=20)).passed


def test_scores_of_different_row_counts_are_not_compared():
    """A candidate and a base that were measured on different numbers of rows do not pass."""
    decision = Gate().decide(score(1, rows=100), score(0, rows=640))
    assert not decision.passed
    assert "candidate 100, base 640" in decision.reason


def test_the_paired_test_counts_wins_and_losses_over_the_same_prompts():
    """4 wins and 1 loss have the exact one-sided probability (1 + 5) / 32 of a fair coin."""
    numbers = Gate().decide(score(0.8, answers="++++-+"), score(0.4, answers="----++")).numbers
    assert (numbers["base/wins"], numbers["base/losses"]) == (4, 1)
    assert numbers["base/p"] == (1 + 5) / 32


def test_answers_to_other_prompts_are_not_paired():
    """Without the same prompts in the same order the numbers hold no paired test."""
    assert "base/p" not in Gate().decide(score(0.8, answers="+++"), score(0.4, answers="+-")).numbers


@settings(max_examples=60, deadline=None)
@given(metric=st.sampled_from(sorted(METRICS)), data=st.data(), margin=margins)
def test_the_gate_is_monotone(metric, data, margin):
    """What passes still passes with a better candidate, a smaller margin or a weaker reference."""
    values = rates if METRICS[metric].higher else losses
    ours, better, theirs, weaker = (data.draw(values) for _ in range(4))
    sign = 1 if METRICS[metric].higher else -1
    assume(sign * better >= sign * ours and sign * weaker <= sign * theirs)
    gate = Gate(metric=metric, margin=margin)
    if gate.decide(score(ours, metric), score(theirs, metric)).passed:
        assert gate.decide(score(better, metric), score(theirs, metric)).passed
        assert gate.decide(score(ours, metric), score(weaker, metric)).passed
        assert dataclasses.replace(gate, margin=margin / 2).decide(score(ours, metric), score(theirs, metric)).passed


@settings(max_examples=60, deadline=None)
@given(metric=st.sampled_from(sorted(METRICS)), data=st.data(), margin=st.floats(0, 0.5))
def test_an_equal_candidate_never_passes(metric, data, margin):
    """Being as good as the base or the champion is not beating it, also with a margin of 0."""
    value = data.draw(rates if METRICS[metric].higher else losses)
    same = score(value, metric)
    assert not Gate(metric=metric, margin=margin).decide(same, same, same).passed


@settings(max_examples=100, deadline=None)
@given(ours=rates, theirs=rates, margin=margins)
def test_the_sentence_agrees_with_the_verdict(ours, theirs, margin):
    """The two numbers that the reason compares stand in the order that the verdict says."""
    decision = Gate(margin=margin, against=("base",)).decide(score(ours), score(theirs))
    tail = decision.reason.rpartition(", ")[2].split()
    if tail[0] == "by":
        gain, sign, asked = float(tail[1]), tail[2], float(tail[3])
        assert (gain >= asked) == (sign == ">=") == decision.passed
    else:
        assert not decision.passed
