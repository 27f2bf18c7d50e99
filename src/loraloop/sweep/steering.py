"""A person's hand in a study at work: to stop a trial, and to try a trial again with a change."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError
from loraloop.sweep.runner import CLONE_OF, REASON

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

STOPPED = "stopped by hand"


def stop(study: optuna.Study, number: int) -> str:
    """Close a running trial as pruned; its job ends at its next validation. What was done, as a sentence.

    Raises:
        ConfigError: It does not run.
    """
    from optuna.trial import TrialState

    trial = _trial(study, number)
    if trial.state != TrialState.RUNNING:
        raise ConfigError(f"stop={number}: trial {number} is {trial.state.name.lower()}, and only a running one stops")
    study._storage.set_trial_user_attr(trial._trial_id, REASON, STOPPED)
    study.tell(number, state=TrialState.PRUNED, skip_if_finished=True)
    return f"trial {number} is pruned; its job ends at its next validation"


def clone(study: optuna.Study, number: int, changes: Sequence[str] = ()) -> str:
    """Queue a trial's parameters with changes, beside the study's ``n_trials``. What was done, as a sentence.

    Args:
        study: The study.
        number: The trial's.
        changes: ``KEY=VALUE`` for parameters of the study, with values that it searches.

    Raises:
        ConfigError: There is no such trial, parameter or value, or the trial has not begun.
    """
    trial = _trial(study, number)
    if not trial.params:
        raise ConfigError(f"clone={number}: trial {number} has not begun, and has no values to be tried again yet")
    params = dict(trial.params) | dict(_change(trial, each) for each in changes)
    study.enqueue_trial(params, {CLONE_OF: number})
    return f"trial {study.get_trials(deepcopy=False)[-1].number} waits with the parameters of trial {number}"


def _trial(study: optuna.Study, number: int) -> FrozenTrial:
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise ConfigError(f"{number} is no trial of {study.study_name}: it has 0 to {len(trials) - 1}")
    return trials[number]


def _change(trial: FrozenTrial, text: str) -> tuple[str, Any]:
    import yaml

    key, equals, written = text.partition("=")
    if not equals or key not in trial.params:
        raise ConfigError(
            f"change={text}: write KEY=VALUE with a parameter of the study{nearest(key, trial.params)}: "
            f"{', '.join(trial.params)}"
        )
    distribution = trial.distributions[key]
    try:
        value = yaml.safe_load(written)
    except yaml.YAMLError:
        value = written  # which no parameter takes
    if isinstance(value, str) and not isinstance(trial.params[key], str):
        value = _number(value)  # YAML takes 1e-3 for a text
    try:
        inside = distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        inside = False
    if not inside:
        raise ConfigError(f"change={text}: the study searches {key} in {distribution}")
    return key, value


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
