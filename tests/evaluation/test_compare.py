"""Two scores side by side."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.metrics import Measurement, summarise
from loraloop.evaluation.compare import bootstrap, compare
from loraloop.records import Example, Provenance, Row, Score


def score(answers: list[str], start: int = 0) -> Score:
    rows = []
    for i in range(start, start + len(answers)):
        example = Example.one_turn(
            input=str(i), output=str(i), task=("even", "odd")[i % 2], provenance=Provenance(source="t")
        )
        rows.append(Row(f"prompt {i}", str(i), example))
    count = len(rows)
    measured = Measurement((1.0,) * count, (1,) * count, tuple(answers), (None,) * count)
    return summarise(rows, measured, lambda example, answer: answer.strip() == example.output)


def right(*indices: int, rows: int = 40) -> Score:
    return score([str(i) if i in indices else "wrong" for i in range(rows)])


def test_differences_come_per_slice_with_all_rows_first():
    """Each metric has one difference for all rows and one per task, b minus a."""
    found = compare(right(0, 2), right(0, 1, 2, 3))
    by = {(each.slice, each.metric): each for each in found.differences}
    assert found.differences[0].slice == ""
    assert by["", "exact_match"].change == pytest.approx(2 / 40)
    assert by["even", "exact_match"].change == 0
    assert by["odd", "exact_match"].change == pytest.approx(2 / 20)
    assert ("odd", "rows") not in by


def test_an_interval_holds_the_change_and_excludes_zero_when_all_changes_are_gains():
    """With twenty gains and no loss in forty rows the interval lies above zero, and it repeats with the seed."""
    a, b = right(), right(*range(20))
    found = compare(a, b, seed=4)
    (exact,) = [d for d in found.differences if (d.slice, d.metric) == ("", "exact_match")]
    low, high = exact.interval
    assert 0 < low < exact.change == 0.5 < high
    assert found == compare(a, b, seed=4)
    assert next(d for d in found.differences if d.metric == "loss").interval is None


def test_the_bootstrap_agrees_with_the_normal_approximation():
    """For many rows the percentile interval is the mean plus and minus 1.96 standard errors."""
    gains = np.random.default_rng(0).choice([-1, 0, 1], size=4000, p=[0.1, 0.6, 0.3])
    low, high = bootstrap(gains.tolist(), [""] * 4000, np.random.default_rng(1))
    error = gains.std() / np.sqrt(4000)
    assert low == pytest.approx(gains.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(gains.mean() + 1.96 * error, abs=0.1 * error)


def test_rows_that_stand_alone_keep_the_interval_that_they_had():
    """For one-turn data the interval is the one of losses, ties and wins, to the last digit."""
    for gains in ([1, 0, 0, -1, 1, 1, 0], [0, 0, 1], [1, 1], [0], [-1, 0, -1, 0]):
        counts = np.bincount(np.asarray(gains) + 1, minlength=3)
        draws = np.random.default_rng(3).multinomial(len(gains), counts / len(gains), size=10_000)
        means = (draws[:, 2] - draws[:, 0]) / len(gains)
        expected = tuple(np.quantile(means, [0.025, 0.975]).tolist())
        assert bootstrap(gains, [""] * len(gains), np.random.default_rng(3)) == expected


def test_turns_of_one_conversation_are_drawn_together():
    """Conversations of five equal turns have the interval of one row each, wider than that of independent rows."""
    gains = np.random.default_rng(0).choice([-1, 0, 1], size=60, p=[0.1, 0.5, 0.4]).tolist()
    alone = bootstrap(gains, [""] * 60, np.random.default_rng(1))
    turns, names = np.repeat(gains, 5).tolist(), np.repeat(np.arange(60).astype(str), 5).tolist()
    together = bootstrap(turns, names, np.random.default_rng(1))
    apart = bootstrap(turns, [""] * 300, np.random.default_rng(1))
    assert together == pytest.approx(alone, abs=0.02)
    assert together[1] - together[0] > 1.8 * (apart[1] - apart[0])
    assert bootstrap(gains, ["one"] * 60, np.random.default_rng(1)) is None


def test_the_comparison_knows_which_rows_are_one_conversation():
    """Scores whose rows are turns of conversations have wider intervals than the same rows alone."""
    a, b = right(), right(*range(20))
    turns = [
        replace(
            each, generations=tuple(replace(one, conversation=f"c{i // 5}") for i, one in enumerate(each.generations))
        )
        for each in (a, b)
    ]
    wide, narrow = (
        next(d.interval for d in compare(*each).differences if (d.slice, d.metric) == ("", "exact_match"))
        for each in (turns, (a, b))
    )
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_answers_to_the_same_prompts_stand_side_by_side():
    """Only prompts that both scores hold are paired, and then no interval is given."""
    found = compare(score(["0", "1", "2", "3"]), score(["x", "3", "y"], start=2))
    assert [(pair.prompt, pair.a, pair.b, pair.a_correct, pair.b_correct) for pair in found.pairs] == [
        ("prompt 2", "2", "x", True, False),
        ("prompt 3", "3", "3", True, True),
    ]
    assert not found.same_rows
    assert all(each.interval is None for each in found.differences)


@given(st.permutations(range(8)))
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_does_not_matter(order):
    """Scores over the same rows in another order are still paired row by row."""
    a = score([str(i) for i in range(8)])
    shuffled = replace(a, generations=tuple(a.generations[i] for i in order))
    found = compare(a, shuffled)
    assert found.same_rows
    assert all(pair.a == pair.b for pair in found.pairs)


def test_equal_prompts_are_paired_once_each():
    """Rows that repeat are paired in order, none twice."""
    double = score(["0"] * 1)
    both = replace(double, rows=2, generations=double.generations + double.generations)
    assert len(compare(both, double).pairs) == 1
    assert len(compare(both, both).pairs) == 2
