"""What a job's answer means for its trial."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from loraloop.errors import ConfigError, PrunedError, TrainingError
from loraloop.sweep.ending import judge


@pytest.mark.parametrize("returned", [0.5, 1, np.float32(0.5), "0.5", float("inf"), True])
def test_a_number_completes_a_trial(returned):
    """Anything that is a number by Python's ``float`` is the trial's value."""
    outcome = judge(returned, 1)
    assert (outcome.state, outcome.values) == ("COMPLETE", (float(returned),))


@pytest.mark.parametrize("returned", [float("nan"), np.nan, None, "far", [0.5], {}, object()])
def test_no_number_fails_a_trial_for_good(returned):
    """Nothing, text, a list or NaN fails the trial with what was returned, and is not tried again."""
    outcome = judge(returned, 1)
    assert (outcome.state, outcome.values, outcome.again) == ("FAIL", None, False)
    assert outcome.reason.startswith("the job returned ")


@pytest.mark.parametrize("returned", [(0.5,), (0.5, 1.0, 2.0), 0.5, "ab", (0.5, None), (0.5, float("nan"))])
def test_several_objectives_need_as_many_numbers(returned):
    """Too few, too many, one number or a hole in them fails a trial of two objectives."""
    assert judge(returned, 2).state == "FAIL"


def test_several_numbers_complete_a_trial():
    """A list or tuple of as many numbers as objectives completes the trial."""
    assert judge([1, 0.5], 2).values == judge((1, 0.5), 2).values == (1.0, 0.5)


@pytest.mark.parametrize("error", [PrunedError("at step 3"), optuna.TrialPruned("at step 3")])
def test_pruning_is_no_failure(error):
    """A trial that was ended early is PRUNED with its reason, and never tried again."""
    outcome = judge(error, 1)
    assert (outcome.state, outcome.reason, outcome.again) == ("PRUNED", "at step 3", False)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (TrainingError("diverged"), False),
        (ConfigError("a", "b"), False),
        (MemoryError("full"), True),
        (OSError(), True),
    ],
)
def test_only_errors_that_may_not_come_again_are_tried_again(error, again):
    """Errors of loraloop's own come again with the same parameters; others may have been the machine's."""
    outcome = judge(error, 1)
    assert (outcome.state, outcome.again) == ("FAIL", again)
