"""A study that is begun, gone on with, and held against what it was begun with."""

from __future__ import annotations

import os
import threading

import pytest
from pydantic import ValidationError

from loraloop.errors import ConfigError
from loraloop.sweep import storage
from loraloop.sweep.opening import open_study
from loraloop.sweep.space import Choice, Numbers
from loraloop.sweep.study import Sweep

SPACE = {"x": Numbers(-4.0, 4.0), "m": Choice(("a", "b"), ("a", "b"))}
TERMS = {"lora.dropout": 0.05, "seed": 0}
MEDIAN = {"_target_": "optuna.pruners.MedianPruner"}


def opened(sweep, space=SPACE, terms=TERMS):
    with open_study(sweep, "unnamed", space, terms) as session:
        return session.study.study_name, session.remaining


def test_the_same_sweep_goes_on(bench):
    """Equal space, direction and configuration open the same study again, also with another sampler and more trials."""
    opened(bench.settings())
    assert opened(bench.settings("TPESampler", n_trials=20)) == ("study", 20)


@pytest.mark.parametrize(
    ("space", "terms", "difference"),
    [
        (SPACE | {"x": Numbers(-4.0, 5.0)}, TERMS, "x: interval(-4.0,4.0) -> interval(-4.0,5.0)"),
        (SPACE | {"y": Numbers(0.0, 1.0)}, TERMS, "y: (absent) -> interval(0.0,1.0)"),
        ({"x": SPACE["x"]}, TERMS, "m: choice(a,b) -> (absent)"),
        (SPACE, TERMS | {"lora.dropout": 0.1}, "lora.dropout: 0.05 -> 0.1"),
        (SPACE, {"seed": 0}, "lora.dropout: 0.05 -> (absent)"),
    ],
)
def test_another_experiment_under_the_same_name_is_refused(space, terms, difference, bench):
    """A changed search space or fixed value is shown, then and now, with the way out, and nothing is changed."""
    opened(bench.settings())
    with pytest.raises(ConfigError) as caught:
        opened(bench.settings(), space, terms)
    (problem,) = caught.value.problems
    assert difference in problem
    assert problem.endswith("hydra.sweeper.study_name=NAME")
    assert opened(bench.settings()) == ("study", 6)


def test_many_differences_are_cut_short(bench):
    """Of a long list of differences the first six are shown and the others counted."""
    opened(bench.settings(), terms={f"key{n}": 0 for n in range(9)})
    with pytest.raises(ConfigError, match=r"key5: 0 -> 1 and 3 more\. Give"):
        opened(bench.settings(), terms={f"key{n}": 1 for n in range(9)})


@pytest.mark.parametrize("direction", ["maximize", ["minimize", "minimize"]])
def test_another_direction_is_refused(direction, bench):
    """A study that minimises one value is not gone on with the other way round, or with two values."""
    opened(bench.settings())
    with pytest.raises(ConfigError, match=r"direction=.* the study study was begun with minimize; give"):
        opened(bench.settings(direction=direction))


def test_a_study_without_a_name_gets_one(bench):
    """Where no name is configured the caller's is the study's."""
    assert opened(bench.settings(study_name=None)) == ("unnamed", 6)


def test_two_sweeps_on_one_study_are_refused(bench):
    """While a sweep is at work a second one on the same study ends with one sentence and fails none of its trials."""
    with open_study(bench.settings(), "", SPACE, TERMS) as session:
        (proposal,) = session.ask(1)
        caught = []

        def second():
            try:
                opened(bench.settings())
            except ConfigError as error:
                caught.append(error)

        thread = threading.Thread(target=second)
        thread.start()
        thread.join()
        assert "another sweep is at work" in str(caught[0])
        assert session.tell(proposal, 1.0).ending.state == "COMPLETE"
    assert [trial.state.name for trial in bench.trials] == ["COMPLETE"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"direction": ["minimize", "maximize"], "pruner": MEDIAN}, "a pruner compares one value, and direction has 2"),
        ({"sampler": {"seed": 1}}, "sampler has no _target_: choose one with hydra/sweeper/sampler=NAME"),
        ({"sampler": {"_target_": "optuna.samplers.RandomSampler", "seed": -1}}, "sampler.seed is -1"),
        ({"direction": []}, "at least 1 item"),
        ({"direction": "down"}, "'minimize' or 'maximize'"),
        ({"n_trials": 0}, "greater than or equal to 1"),
        ({"max_failure_rate": 1.5}, "less than or equal to 1"),
    ],
)
def test_settings_that_do_not_fit_say_their_rule(changes, rule, bench):
    """Bounds, names and combinations are checked when the sweep is built, before anything is opened."""
    with pytest.raises(ValidationError, match=rule):
        bench.settings(**changes)


def test_an_empty_space_is_refused(bench):
    """A sweep without anything to search says what to add."""
    with pytest.raises(ConfigError, match="nothing is swept: add KEY=choice"):
        opened(bench.settings(), {})


def test_without_a_seed_sweeps_differ(bench):
    """With ``seed: null`` two sweeps propose different trials."""
    first, second = (bench.carry_out((bench / name).settings(seed=None), most=2) for name in "ab")
    assert [finished.params for finished in first] != [finished.params for finished in second]


def test_a_study_in_postgresql_is_the_study_in_a_file(postgres, bench):
    """On PostgreSQL the same sweep proposes the same trials, is killed, goes on, retries and is refused alike."""
    name = f"same-{os.getpid()}"
    sweep = bench.settings("TPESampler", storage=postgres, study_name=name, n_trials=5)
    first = bench.carry_out(sweep, SPACE, most=2)
    opening = open_study(sweep, "", SPACE, {})
    session = opening.__enter__()
    session.ask(1)
    session.recover = lambda **_: 0
    opening.__exit__(None, None, None)
    rest = bench.carry_out(sweep, SPACE)
    in_a_file = bench.carry_out((bench / "file").settings("TPESampler", n_trials=5), SPACE)
    assert [finished.params for finished in first + rest] == [finished.params for finished in in_a_file]
    assert [finished.number for finished in first + rest] == [0, 1, 3, 4, 5]
    with pytest.raises(ConfigError, match=r"x: interval\(-4.0,4.0\) -> \(absent\)"):
        bench.carry_out(sweep, {"m": SPACE["m"]})
    url = storage.address(postgres, "")
    assert storage.connect(url).get_study_id_from_name(name) > 0


def test_importing_the_part_needs_no_optuna():
    """The settings are built and refused without loading Optuna."""
    import subprocess
    import sys

    code = (
        "import sys\nfrom loraloop.sweep.study import Sweep\n"
        "Sweep(sampler={'_target_': 'a'}, pruner={'_target_': 'b'}, folder='x')\n"
        "assert 'optuna' not in sys.modules and 'sqlalchemy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert Sweep.__name__ == "Sweep"
