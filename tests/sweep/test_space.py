"""The neutral search space."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from loraloop.sweep.space import Choice, Numbers, grid


@pytest.mark.parametrize(
    ("dimension", "distribution"),
    [
        (Choice((4, "a", None, True), ("4", "a", "null", "true")), CategoricalDistribution((4, "a", None, True))),
        (Numbers(1.0, 5.0), FloatDistribution(1.0, 5.0)),
        (Numbers(1.0, 5.0, log=True), FloatDistribution(1.0, 5.0, log=True)),
        (Numbers(1, 5, integer=True), IntDistribution(1, 5)),
        (Numbers(1, 64, log=True, integer=True), IntDistribution(1, 64, log=True)),
        (Numbers(1, 3, step=1, integer=True), IntDistribution(1, 3)),
        (Numbers(0.5, 5.5, step=1.0), FloatDistribution(0.5, 5.5, step=1.0)),
        (Numbers(1, 10, step=4, integer=True), IntDistribution(1, 9, step=4)),
        (Numbers(0.0, 1.0, step=0.3), FloatDistribution(0.0, 0.9, step=0.3)),
    ],
)
def test_a_dimension_is_optunas_distribution(dimension, distribution):
    """Each kind becomes the distribution of hydra-optuna-sweeper; a range ends on its last whole step."""
    assert dimension.distribution() == distribution


@pytest.mark.parametrize(
    ("make", "rule"),
    [
        (lambda: Choice((), ()), "nothing to choose from"),
        (lambda: Numbers(64.0, 4.0), "the lower end comes first: 4 before 64"),
        (lambda: Numbers(1.0, float("inf")), "finite"),
        (lambda: Numbers(0.0, 1.0, log=True), "begins above 0, not at 0"),
        (lambda: Numbers(1, 9, step=0, integer=True), "the step is 0 and must be above 0"),
        (lambda: Numbers(1, 9, step=2, log=True, integer=True), "no step, here 2"),
    ],
)
def test_an_impossible_dimension_says_its_rule(make, rule):
    """An empty choice, reversed or infinite ends, a bad step or logarithm is refused with what would be right."""
    with pytest.raises(ValueError, match=rule):
        make()


def test_a_grid_is_every_combination_with_both_ends():
    """Choices, ranges and integer intervals are listed whole, the upper end of a range included."""
    space = {"a": Choice(("p", "q"), ("p", "q")), "b": Numbers(0.1, 0.3, step=0.1), "c": Numbers(1, 2, integer=True)}
    points = grid(space)
    assert len(points) == 2 * 3 * 2
    assert points[0] == {"a": "p", "b": 0.1, "c": 1}
    assert {point["b"] for point in points} == {0.1, 0.2, 0.3}


def test_a_grid_of_an_interval_names_it():
    """An interval of all numbers cannot be listed, and the message holds its key and what can."""
    with pytest.raises(ValueError, match=r"lr=interval\(0.1,0.2\) has no countable values: choice"):
        grid({"lr": Numbers(0.1, 0.2)})


@given(st.integers(-50, 50), st.integers(0, 60), st.integers(1, 9), st.booleans())
def test_what_is_listed_is_what_is_proposed(low, span, step, integer):
    """Every value of a stepped range lies in Optuna's distribution, and the first and last are its ends."""
    scale = 1 if integer else 0.25
    numbers = Numbers(low * scale, (low + span) * scale, step=step * scale, integer=integer)
    values = numbers.grid()
    distribution = numbers.distribution()
    assert (values[0], values[-1]) == (distribution.low, distribution.high)
    assert all(distribution._contains(value) for value in values)
    assert len(values) == span // step + 1


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_probes_of_numbers_are_both_ends_and_a_fraction(low, span):
    """An interval is tried at both its ends and at a place that no integer key takes; each reads back as itself."""
    numbers = Numbers(low, low + span)
    probes = [float(text) for text in numbers.probes()]
    assert {low, low + span} <= set(probes)
    assert all(low <= probe <= low + span for probe in probes)


def test_a_dimension_is_written_as_it_was_asked_for():
    """The text of a dimension is the grammar that gives it again."""
    texts = [
        "choice(1,b)",
        "interval(0.1,2.0)",
        "tag(log,int(interval(4,64)))",
        "range(0,6,2)",
        "tag(log,interval(1.0,9.0))",
    ]
    made = [
        Choice((1, "b"), ("1", "b")),
        Numbers(0.1, 2.0),
        Numbers(4, 64, log=True, integer=True),
        Numbers(0, 6, step=2, integer=True),
        Numbers(1.0, 9.0, log=True),
    ]
    assert [str(dimension) for dimension in made] == texts
