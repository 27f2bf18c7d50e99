"""What is said of a study when it has ended."""

import optuna

from loraloop.sweep import analysis
from loraloop.sweep.trial import WORK


def ended(study, steps, seconds=None):
    """A trial of so many steps: pruned, or with ``seconds`` trained to its end."""
    trial = study.ask()
    trial.report(1.0, steps)
    if seconds is not None:
        trial.set_user_attr(WORK, {"steps": steps, "rows_per_step": 16, "seconds": seconds})
        study.tell(trial, 1.0)
    else:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)


def test_savings_are_the_steps_that_pruned_trials_did_not_take():
    """Two whole trials of 40 steps and two that ended at 5 and 10: 65 of 160 steps, of 16 rows and 0.1 s each."""
    study = optuna.create_study()
    assert analysis.savings(study) is None
    ended(study, 40, 2.0)
    assert analysis.savings(study) is None
    ended(study, 5)
    ended(study, 10)
    ended(study, 40, 6.0)
    assert analysis.savings(study) == analysis.Savings(steps=65, share=65 / 160, samples=65 * 16, seconds=6.5)
