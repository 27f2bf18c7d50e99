"""A trial as its job sees it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st

from loraloop.errors import PrunedError
from loraloop.sweep.opening import open_study
from loraloop.sweep.space import Numbers
from loraloop.sweep.trial import Trial

SPACE = {"x": Numbers(0.0, 1.0)}
MEDIAN = {"_target_": "optuna.pruners.MedianPruner", "n_startup_trials": 2, "n_warmup_steps": 0}
HYPERBAND = {"_target_": "optuna.pruners.HyperbandPruner", "min_resource": 1, "max_resource": 9, "reduction_factor": 3}

TRIALS = st.builds(
    Trial,
    storage=st.text(min_size=1),
    study=st.text(min_size=1),
    number=st.integers(0, 10**6),
    trial_id=st.integers(0, 10**9),
    parent=st.none() | st.text(),
    pruner=st.none() | st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
)


@given(TRIALS)
def test_a_trial_survives_hydras_grammar(trial):
    """An encoded trial, whatever its names hold, is a value of Hydra's grammar that stays a string, and decodes."""
    text = trial.encode()
    assert re.fullmatch(r"[A-Za-z0-9_-]+", text)
    value = OverridesParser.create().parse_override(f"+hydra.job.env_set.LORALOOP_TRIAL={text}").value()
    assert value == text
    assert Trial.decode(value) == trial


def curve(session, losses):
    """A trial that reports ``losses`` and then returns the last; ends as the pruner says."""
    (proposal,) = session.ask(1)
    trial = Trial.decode(session.identity(proposal).encode())
    try:
        for step, loss in enumerate(losses):
            trial.report(step, loss)
        return session.tell(proposal, losses[-1])
    except PrunedError as error:
        return session.tell(proposal, error)


def test_a_worse_trial_is_pruned_at_its_step(bench):
    """A trial whose loss is above the median ends at that step as PRUNED, and the reason names step, rule and loss."""
    with open_study(bench.settings(pruner=MEDIAN), "", SPACE, {}) as session:
        good = [curve(session, losses) for losses in ([5.0, 3.0, 1.0], [4.0, 2.0, 1.0])]
        bad = curve(session, [4.5, 9.0, 0.0])
    assert [finished.ending.state for finished in [*good, bad]] == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert bad.ending.reason == "trial 2 pruned at step 1 by MedianPruner: loss 9"
    pruned = bench.trials[2]
    assert (pruned.state.name, pruned.intermediate_values) == ("PRUNED", {0: 4.5, 1: 9.0})
    assert pruned.user_attrs["reason"] == bad.ending.reason


def test_a_study_that_maximises_prunes_high_losses_too(bench):
    """Where the job's value is maximised, the trial with the higher loss is the worse one all the same."""
    with open_study(bench.settings(pruner=MEDIAN, direction="maximize"), "", SPACE, {}) as session:
        for _ in range(2):
            curve(session, [5.0, 3.0])
        states = [curve(session, losses).ending.state for losses in ([1.0, 0.5], [9.0, 9.0])]
    assert states == ["COMPLETE", "PRUNED"]


def test_hyperband_prunes_across_processes_of_one_study(bench):
    """Hyperband, built anew for each report, keeps good trials and ends hopeless ones."""
    with open_study(bench.settings(pruner=HYPERBAND, n_trials=12), "", SPACE, {}) as session:
        curves = [[level] * 9 for level in (1.0, 1.0, 1.0, 9.0, 9.0, 9.0, 9.0, 1.0)]
        states = [curve(session, losses).ending.state for losses in curves]
    assert states[0] == "COMPLETE"
    assert "PRUNED" in states[3:7]


def test_without_a_pruner_losses_are_only_kept(bench):
    """By default every trial runs to its end, and its losses are in the study."""
    with open_study(bench.settings(), "", SPACE, {}) as session:
        states = [curve(session, [9.0 * n, 9.0 * n]).ending.state for n in range(4)]
    assert set(states) == {"COMPLETE"}
    assert bench.trials[3].intermediate_values == {0: 27.0, 1: 27.0}


def test_several_objectives_report_nothing(bench):
    """With two objectives a report is passed over: there is no one value to compare."""
    with open_study(bench.settings(direction=["minimize", "minimize"]), "", SPACE, {}) as session:
        (proposal,) = session.ask(1)
        session.identity(proposal).report(1, 0.5)
        session.tell(proposal, (0.5, 0.5))
    assert bench.trials[0].state.name == "COMPLETE"


def test_a_trial_that_the_sweep_gave_up_ends(bench):
    """A job that outlived its sweep is told to end when it next reports, and changes nothing."""
    with open_study(bench.settings(), "", SPACE, {}) as session:
        (proposal,) = session.ask(1)
        trial = session.identity(proposal)
    with pytest.raises(PrunedError, match="trial 0 ended at step 7: the sweep went on without it"):
        trial.report(7, 0.1)
    assert bench.trials[0].state.name == "FAIL"


def test_facts_are_kept_with_the_trial(bench):
    """What a job notes, such as its run, stands with the trial; its parent is the sweep's run."""
    with open_study(bench.settings(), "", SPACE, {}) as session:
        (proposal,) = session.ask(1)
        trial = Trial.decode(session.identity(proposal, "abc").encode())
        trial.note(run="r1", seconds=2.5)
    assert (trial.number, trial.parent) == (0, "abc")
    assert bench.trials[0].user_attrs.items() >= {"run": "r1", "seconds": 2.5}.items()


def test_another_process_reports_to_the_same_trial(bench):
    """The text alone is enough for a process elsewhere to report and note."""
    with open_study(bench.settings(), "", SPACE, {}) as session:
        (proposal,) = session.ask(1)
        code = (
            "import sys\nfrom loraloop.sweep.trial import Trial\ntrial = Trial.decode(sys.argv[1])\n"
            "trial.report(3, 0.25)\ntrial.finish(0.125)"
        )
        subprocess.run([sys.executable, "-c", code, session.identity(proposal).encode()], check=True)
        finished = session.tell(proposal, RuntimeError("the worker was killed after its work"))
    assert finished.ending.values == (0.125,)
    assert bench.trials[0].intermediate_values == {3: 0.25}
