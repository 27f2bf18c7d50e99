"""Successive halving from the first validation on."""

import optuna
import pytest

from loraloop.sweep.halving import SuccessiveHalving


@pytest.fixture
def study():
    """A study in memory that minimises."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(pruner=SuccessiveHalving())


def course(study, losses, every):
    """Steps at which a trial that reports ``losses``, one after ``every`` steps, is told to end."""
    trial, ended = study.ask(), []
    for number, loss in enumerate(losses, start=1):
        trial.report(loss, number * every)
        if trial.should_prune():
            ended.append(number * every)
            break
    return ended


@pytest.mark.parametrize("every", [1, 3, 20])
def test_a_trial_is_looked_at_after_its_first_validation_and_at_twice_the_steps(study, every):
    """Whatever the steps between validations: the best so far goes on, and one that falls behind later ends there."""
    assert course(study, [4.0, 3.0, 2.0, 1.0], every) == []
    assert course(study, [5.0], every) == [every]
    assert course(study, [3.9, 3.5, 3.0, 3.0], every) == [2 * every]
    assert course(study, [3.8, 2.9, 9.0, 0.9], every) == []


def test_trials_with_another_first_validation_do_not_compete(study):
    """Good trials that were first looked at later end none that is looked at earlier and is the best of its kind."""
    for loss in (0.1, 0.2, 0.3):
        course(study, [loss], 20)
    assert course(study, [3.0], 5) == []
    assert course(study, [4.0], 5) == [5]


def test_what_cannot_be_is_refused_when_it_is_built():
    """A factor of one would halve nothing, and Optuna's sentence says so before the first trial."""
    with pytest.raises(ValueError, match="reduction_factor"):
        SuccessiveHalving(reduction_factor=1)
