"""Hydra's override grammar as a search space, and values as overrides."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hydra_plugins.loraloop_sweeper import _overrides
from loraloop.errors import ConfigError

LOADER = None
"""Only ``glob`` looks at the folders of groups."""


def read(*lines):
    return _overrides.read(lines, LOADER)


@pytest.mark.parametrize(
    ("text", "distribution"),
    [
        ("choice(1,2)", CategoricalDistribution([1, 2])),
        ("1,2", CategoricalDistribution([1, 2])),
        ("null,2", CategoricalDistribution([None, 2])),
        ("choice(true,false)", CategoricalDistribution([True, False])),
        ("bool(choice(0,1))", CategoricalDistribution([False, True])),
        ("choice('hello','two words')", CategoricalDistribution(["hello", "two words"])),
        ("[1,2],[3]", CategoricalDistribution(["[1,2]", "[3]"])),
        ("sort(3,1,2)", CategoricalDistribution([1, 2, 3])),
        ("shuffle(range(1,3))", CategoricalDistribution([1, 2])),
        ("shuffle(a,b,c,d,e,f,g)", CategoricalDistribution(list("abcdefg"))),
        ("float(choice(1,2))", CategoricalDistribution([1.0, 2.0])),
        ("range(1,3)", IntDistribution(1, 3)),
        ("range(4)", IntDistribution(0, 4)),
        ("range(1,9,step=4)", IntDistribution(1, 9, step=4)),
        ("float(range(1,3))", FloatDistribution(1.0, 3.0, step=1.0)),
        ("range(0.5,5.5,step=1)", FloatDistribution(0.5, 5.5, step=1)),
        ("int(range(0.5,5.5,step=1))", IntDistribution(0, 5)),
        ("interval(1,5)", FloatDistribution(1, 5)),
        ("int(interval(1,5))", IntDistribution(1, 5)),
        ("tag(log,interval(1,5))", FloatDistribution(1, 5, log=True)),
        ("tag(log,int(interval(1,5)))", IntDistribution(1, 5, log=True)),
        ("int(tag(log,interval(1,5)))", IntDistribution(1, 5, log=True)),
    ],
)
def test_the_grammar_means_what_it_means_to_hydra_optuna_sweeper(text, distribution):
    """Every sweep form is the distribution that hydra-optuna-sweeper documents or tests; a range holds both ends."""
    space = read(f"key={text}").space
    assert {key: dimension.distribution() for key, dimension in space.items()} == {"key": distribution}


def test_what_is_not_swept_is_fixed():
    """Other overrides pass through as they were written: values, groups, additions and deletions."""
    lines = ["a=5", "b=[1,2]", "c='two words'", "+d=x", "++e=null", "~f", "g@h=i"]
    asked = read(*lines, "k=choice(1)")
    assert asked.fixed == lines
    assert asked.settings == {"a": "5", "b": "[1,2]", "c": "'two words'", "+d": "x", "++e": "null", "g@h": "i"}
    assert set(asked.space) == {"k"}


@pytest.mark.parametrize(
    ("lines", "space", "fixed"),
    [
        (["a=choice(1,2)", "a=3"], {}, ["a=3"]),
        (["a=3", "a=choice(1,2)"], {"a": "choice(1,2)"}, []),
        (["a=choice(1,2)", "~a"], {}, ["~a"]),
        (["a=choice(1,2)", "++a=choice(3,4)"], {"++a": "choice(3,4)"}, []),
    ],
)
def test_of_two_overrides_the_later_counts(lines, space, fixed):
    """The command line stands after ``params``, so a key that both name is the command line's, whatever its prefix."""
    asked = read(*lines)
    assert {key: str(dimension) for key, dimension in asked.space.items()} == space
    assert asked.fixed == fixed


def test_every_override_that_cannot_be_read_is_named():
    """All that is wrong is shown at once, each with its own override."""
    with pytest.raises(ConfigError) as caught:
        read("a=choice()", "b=interval(5,1)", "c=[", "d=1,2")
    assert [problem.partition(": ")[0] for problem in caught.value.problems] == ["a=choice()", "c=[", "b=interval(5,1)"]
    assert "empty choice" in caught.value.problems[0]


@given(st.text() | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False))
def test_a_value_is_written_so_that_it_reads_back(value):
    """Whatever a value is, the override that a job gets holds that value, of the same type."""
    read_back = OverridesParser.create().parse_override(f"key={_overrides.written(value)}").value()
    assert read_back == value
    assert type(read_back) is type(value)


@given(st.lists(st.text() | st.integers() | st.booleans(), min_size=1, max_size=4))
def test_choices_reach_the_job_as_they_were_given(values):
    """Quoted, typed and listed choices are written into each job's overrides as the values that were chosen from."""
    line = f"key=choice({','.join(_overrides.written(value) for value in values)})"
    choice = read(line).space["key"]
    assert list(choice.values) == values
    parser = OverridesParser.create()
    assert [parser.parse_override(f"key={text}").value() for text in choice.texts] == values
