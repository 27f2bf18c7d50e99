"""The gate's rule, its sentences and its numbers."""

import dataclasses
import math
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loraloop.core.metrics import METRICS
from loraloop.gate.gate import Gate
from loraloop.records import Change, General, Generation, Score


def score(value: float, metric: str = "task_accuracy", rows: int = 100, marks: str | None = None) -> Score:
    """A score whose first ``value`` of the rows are right; for a loss, each row has that loss."""
    values = dict.fromkeys(METRICS, 0.5)
    values |= {"loss": 1.0, "perplexity": math.e, metric: value}
    right = round(value * rows) if METRICS[metric].higher and math.isfinite(value) else 0
    marks = marks or "+" * right + "-" * (rows - right)
    nll = value if metric in ("loss", "perplexity") else 1.0
    generations = tuple(
        Generation("count", f"p{i}", "x", "x" if mark == "+" else "y", mark == "+", nll, mark == "+")
        for i, mark in enumerate(marks)
    )
    return Score(rows=len(marks), generations=generations, values=values)


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
    decision = Gate().decide(score(0.93), score(0.0), score(0.88))
    assert decision.passed
    assert decision.reason == (
        "task_accuracy 0.93 beats base 0, by 0.93 >= 0.02 (p <0.0001) and "
        "beats champion 0.88, by 0.05 >= 0.02 (p 0.031)"
    )


def test_a_reigning_champion_is_not_replaced_by_less_than_the_margin():
    """Beating the base is not enough when the champion is beaten by less than the margin, and the reason says so."""
    decision = Gate().decide(score(0.93), score(0.1), score(0.92))
    assert not decision.passed
    assert decision.reason.endswith("does not beat champion 0.92, by 0.01 < 0.02 (p 0.5 > 0.05)")


def test_a_gain_of_exactly_the_margin_passes():
    """0.95 against 0.93 reaches a margin of 0.02 although the binary difference falls short of it."""
    assert Gate(must_beat=("base",), max_p=1).decide(score(0.95), score(0.93)).passed


def test_loss_falls_and_its_margin_is_a_share():
    """For loss, lower is better and 0.1 means ten percent below the reference."""
    gate = Gate(metric="loss", margin=0.1)
    assert gate.decide(score(1.8, "loss"), score(2.0, "loss")).passed
    assert not gate.decide(score(1.9, "loss"), score(2.0, "loss")).passed
    assert not gate.decide(score(0.1, "loss"), score(0.0, "loss")).passed


def test_without_a_champion_only_the_base_is_to_beat():
    """A champion that does not exist is passed over, and a gate against it alone says that there is none."""
    assert Gate().decide(score(0.5), score(0.1), None).passed
    alone = Gate(must_beat=("champion",)).decide(score(0.5), score(0.9), None)
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
    reason = few.decide(score(1, rows=19), score(0, rows=19)).reason
    assert reason.startswith("measured on 19 rows, fewer than gate.min_rows=20: collect more, or hold out more")
    assert reason.endswith("evaluation.max_rows and labels of bad answers limit them too")
    assert not Gate(min_rows=20, must_beat=("champion",)).decide(score(1, rows=19), score(0)).passed
    assert few.decide(score(1, rows=20), score(0, rows=20)).passed


def test_scores_of_different_row_counts_are_not_compared():
    """A candidate and a base that were measured on different numbers of rows do not pass."""
    decision = Gate().decide(score(1, rows=100), score(0, rows=640))
    assert not decision.passed
    assert "candidate 100, base 640, 100 in common" in decision.reason


def test_equal_counts_of_rows_are_not_equal_rows():
    """As many rows, but one of them another one, is no comparison."""
    candidate, base = score(1.0), score(0.0)
    other = dataclasses.replace(base.generations[0], prompt="another")
    base = dataclasses.replace(base, generations=(other, *base.generations[1:]))
    decision = Gate().decide(candidate, base)
    assert not decision.passed
    assert "not measured on the same held-out rows (candidate 100, base 100, 99 in common)" in decision.reason


def test_a_gain_that_chance_gives_as_well_does_not_pass():
    """4 wins and 1 loss have the exact probability (1 + 5) / 32 of a fair coin, which is too much for a gain of 10%."""
    candidate, base = score(0, marks="++++-" + "+" * 25), score(0, marks="----+" + "+" * 25)
    candidate, base = (
        dataclasses.replace(each, values={"task_accuracy": v}) for each, v in ((candidate, 0.967), (base, 0.867))
    )
    decision = Gate().decide(candidate, base)
    assert (decision.numbers["base/wins"], decision.numbers["base/losses"]) == (4, 1)
    assert decision.numbers["base/p"] == pytest.approx((1 + 5) / 32)
    assert not decision.passed
    assert decision.reason.endswith("by 0.1 >= 0.02 (p 0.19 > 0.05)")
    assert Gate(max_p=0.2).decide(candidate, base).passed
    assert Gate(max_p=1).decide(candidate, base).passed


def test_a_score_without_its_rows_values_is_not_tested():
    """A score of an earlier version, which kept no loss a row, does not pass on the loss, and still does on answers."""
    candidate, base = score(0.5, "loss"), score(1.0, "loss")
    base = dataclasses.replace(base, generations=tuple(dataclasses.replace(g, nll=None) for g in base.generations))
    decision = Gate(metric="loss").decide(candidate, base)
    assert not decision.passed
    assert decision.reason == "loss was not kept row by row when the base was measured: measure it again"
    assert Gate(metric="loss", max_p=1).decide(candidate, base).passed


def test_examples_alone_may_have_to_be_beaten():
    """With few_shot in against, an adapter that the base with examples nearly equals is refused."""
    prompted = score(0.92)
    shown = tuple(dataclasses.replace(each, prompt=f"an example\n{each.prompt}") for each in prompted.generations)
    prompted = dataclasses.replace(prompted, generations=shown)
    gate = Gate(must_beat=("base", "few_shot", "champion"))
    decision = gate.decide(score(0.93), score(0.1), score(0.8), prompted)
    assert not decision.passed
    assert "does not beat few_shot 0.92, by 0.01 < 0.02 (p 0.5 > 0.05) and beats champion 0.8" in decision.reason
    assert decision.numbers["few_shot/wins"] == 1
    assert Gate().decide(score(0.93), score(0.1), score(0.8), prompted).passed
    missing = gate.decide(score(0.93), score(0.1), score(0.8))
    assert not missing.passed
    assert "few_shot was not measured beside the candidate: train with evaluation.few_shot=3" in missing.reason


def test_examples_of_other_rows_are_no_comparison():
    """A few-shot score whose expected answers are others is not taken for one of the same rows."""
    other = score(0.2)
    other = dataclasses.replace(
        other, generations=tuple(dataclasses.replace(each, expected="z") for each in other.generations)
    )
    decision = Gate(must_beat=("few_shot",)).decide(score(0.9), score(0.1), None, other)
    assert not decision.passed
    assert "not measured on the same held-out rows" in decision.reason


def sliced(**tasks: str) -> Score:
    """A score of several tasks, each with the marks of its rows."""
    rows, found = [], {}
    for task, marks in tasks.items():
        made = [dataclasses.replace(each, task=task) for each in score(0, marks=marks).generations]
        rows += made
        found[task] = Score(rows=len(made), values={"task_accuracy": marks.count("+") / len(made)})
    right = sum(each.correct for each in rows)
    return Score(rows=len(rows), values={"task_accuracy": right / len(rows)}, slices=found, generations=tuple(rows))


BEFORE = sliced(count="-" * 60, sort="+" * 30, few="+" * 10)
AFTER = sliced(count="+" * 60, sort="+" * 20 + "-" * 10, few="-" * 10)
"""Better on the whole, worse on ``sort``; ``few`` has too few rows for a verdict."""


@pytest.mark.parametrize(
    ("slices", "passed", "tail"),
    [
        (
            "refuse",
            False,
            "; worse than the champion on sort (0.6667 after 1, p 0.00098): refused by gate.slices=refuse",
        ),
        (
            "warn",
            True,
            "; worse than the champion on sort (0.6667 after 1, p 0.00098): a warning by gate.slices=warn",
        ),
        ("none", True, "by 0.4 >= 0.02 (p <0.0001)"),
    ],
)
def test_a_task_that_got_worse_refuses_or_warns(slices, passed, tail):
    """An adapter that is better on the whole and worse on a task is refused, told of or let through by gate.slices."""
    decision = Gate(slices=slices).decide(AFTER, sliced(count="-" * 60, sort="-" * 30, few="-" * 10), BEFORE)
    assert decision.passed is passed
    assert decision.reason.endswith(tail)
    assert [*decision.numbers.get("worse_slices", {})] == (["sort"] if slices != "none" else [])


@pytest.mark.parametrize(
    "change", [{"slice_margin": 0.34}, {"max_p": 0.0005}, {"min_rows": 31}, {"metric": "loss", "max_p": 1}]
)
def test_a_slice_is_worse_by_margin_and_test_alone(change):
    """A smaller fall than the margin, one that chance gives, too few rows or a metric that was not measured is none."""
    after, before = (
        dataclasses.replace(each, values=dict(each.values) | {"loss": loss}) for each, loss in ((AFTER, 1), (BEFORE, 2))
    )
    assert "worse_slices" not in Gate(**{"slices": "refuse"} | change).decide(after, before).numbers
    assert "worse_slices" in Gate(slices="refuse", min_rows=30).decide(after, before).numbers


def test_without_a_champion_slices_are_held_against_the_base():
    """The first adapter of a model is refused for what the base did better."""
    decision = Gate(slices="refuse").decide(AFTER, BEFORE)
    assert not decision.passed
    assert "worse than the base on sort" in decision.reason


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
    decision = Gate(margin=margin, max_p=1, must_beat=("base",)).decide(score(ours), score(theirs))
    tail = decision.reason.rpartition(", ")[2].split()
    if tail[0] == "by":
        gain, sign, asked = float(tail[1]), tail[2], float(tail[3])
        assert (gain >= asked) == (sign == ">=") == decision.passed
    else:
        assert not decision.passed


def general(low: float = -0.1, kind: float = -0.1, rules_p: float = 0.03) -> General:
    """Forty instructions of two kinds: lower ends of intervals of losses, and the probability of lost rules."""
    calm = Change(before=2.0, after=2.05, low=-0.1, high=0.2)
    return General(
        instructions_sha256="0" * 64,
        rows=40,
        loss=dataclasses.replace(calm, low=low, high=0.5),
        rules=Change(before=0.5, after=0.45, low=-0.2, high=0.1),
        rules_p=rules_p,
        slices={"facts": calm, "sums": Change(before=1.0, after=1.5, low=kind, high=0.8)},
    )


def test_general_ability_is_told_with_its_intervals():
    """A verdict says what became of the base's general ability and keeps the figures, also where all is well."""
    found = Gate().decide(score(0.93), score(0.0), general=general())
    assert found.passed
    assert found.reason.endswith(
        "; general ability on 40 instructions: loss 2.05 after 2 (-0.1 to +0.5), "
        "rules kept 0.45 after 0.5 (-0.2 to +0.1)"
    )
    assert found.numbers["general"]["slices"]["sums"]["after"] == 1.5
    assert "forgot" not in found.numbers


@pytest.mark.parametrize(
    ("measured", "forgot", "said"),
    [
        (general(low=0.11), ["all"], "it forgets all"),
        (general(kind=0.2), ["sums"], r"it forgets sums \(loss 1.5 after 1 \(\+0.2 to \+0.8\)\)"),
        (general(rules_p=0.02), ["rules"], "it forgets rules"),
        (general(low=math.nan), ["all"], "it forgets all"),
        (general(low=0.09), [], ""),
    ],
)
def test_what_was_forgotten_warns_or_refuses(measured, forgot, said):
    """A loss of all or of a kind that rose beyond the margin by its whole interval warns, or refuses where asked to."""
    warned, refused = (
        Gate(general=how).decide(score(0.93), score(0.0), general=measured) for how in ("warn", "refuse")
    )
    assert warned.passed
    assert warned.numbers.get("forgot", []) == forgot
    assert refused.passed is not bool(forgot)
    if forgot:
        assert re.search(f"{said}: a warning by gate.general=warn$", warned.reason)
        assert refused.reason.endswith("refused by gate.general=refuse")
