"""A study at work: its table, and a person's hand in it."""

from __future__ import annotations

import math
from datetime import datetime

import pytest

from loraloop.errors import PrunedError
from loraloop.sweep import steering, watch_terminal, watching
from loraloop.sweep.opening import open_study
from loraloop.sweep.space import Numbers

SPACE = {"x": Numbers(-4.0, 4.0)}
NOW = datetime(2026, 1, 1)


@pytest.fixture
def session(bench):
    """A sweep of five trials at work: one completed, two run in a batch, of which one has reported two losses."""
    with open_study(bench.settings(n_trials=5), "unnamed", SPACE, {}) as session:
        (first,) = session.ask(1)
        session.tell(first, 0.25)
        second, _ = session.ask(2)
        trial = session.identity(second)
        trial.report(1, 3.0)
        trial.report(2, 1.0)
        yield session


@pytest.mark.parametrize(
    ("values", "line"),
    [([], ""), ([5.0], "\u2581"), ([0.0, 7.0, 3.5], "\u2581\u2588\u2585"), ([math.nan, 2.0, 1.0], "\u2588\u2581")],
)
def test_a_curve_is_a_line_of_blocks(values, line):
    """The highest value is a whole block and the lowest a thin one; what is no number is left out."""
    assert watching.sparkline(values) == line
    assert len(watching.sparkline(list(range(99)))) == watching.WIDTH


def test_the_table_says_how_far_the_study_is(session):
    """Trials done of all, places, the best with its parameters, and the time left stand above the trials."""
    study = session.study
    progress, best = watching.heading(watching.look(study))
    assert progress.startswith("study study: 1 of 5 trials done, 2 running in 2 places, about ")
    assert best == f"best 0.25, trial 0: x={study.trials[0].params['x']:.6g}"


def test_a_row_shows_state_curve_and_last_loss(session):
    """A running trial has its validation curve and its last loss, a completed one its value."""
    done, running, _ = (watching.cells(trial, lower=True, now=NOW) for trial in session.study.trials)
    assert done[:3] == ["0", "complete", "0.25"]
    assert running[:5] == ["1", "running", "-", "\u2588\u2581", "1"]


def test_a_stopped_trial_ends_at_its_next_validation(session):
    """A trial that is stopped is pruned in the study, its job is told at its next validation, and no other is."""
    trials = session.study.trials
    assert steering.stop(session.study, 1) == "trial 1 is pruned; its job ends at its next validation"
    identity = session.identity(_proposal(trials[1]))
    with pytest.raises(PrunedError, match="trial 1 ended at step 3"):
        identity.report(3, 0.5)
    session.identity(_proposal(trials[2])).report(1, 0.5)
    assert session.tell(_proposal(trials[1]), PrunedError("late")).ending.state == "PRUNED"
    assert [trial.state.name for trial in session.study.trials] == ["COMPLETE", "PRUNED", "RUNNING"]


def test_a_trial_stopped_after_its_last_validation_is_not_tried_again(session):
    """Its job ends where it next notes a fact, and whatever it then raises is neither queued again nor counted."""
    stopped = session.study.trials[1]
    steering.stop(session.study, 1)
    with pytest.raises(PrunedError, match="trial 1 was closed"):
        session.identity(_proposal(stopped)).note(work={"steps": 3})
    session.tell(_proposal(stopped), RuntimeError("the trial is closed"))
    assert [trial.state.name for trial in session.study.trials] == ["COMPLETE", "PRUNED", "RUNNING"]
    assert session.failures == 0


def test_a_trial_that_waits_is_not_cloned(session):
    """A queued trial has no values yet, and a clone of it would be another, random one."""
    steering.clone(session.study, 0)
    assert "trial 3 has not begun" in watch_terminal.answer(session.study, "c", "3")
    assert len(session.study.trials) == 4


def test_a_clone_is_tried_beside_the_others(session):
    """A clone has the trial's parameters with the change, is the next one asked for, and takes no other's place."""
    before = session.remaining
    steering.clone(session.study, 0, ["x=1e-3"])
    assert session.remaining == before + 1
    (proposal,) = session.ask(1)
    assert proposal.params == {"x": 0.001}
    assert watching.cells(session.study.trials[proposal.number], lower=True, now=NOW)[-1] == "clone of trial 0"


@pytest.mark.parametrize(
    ("key", "words", "sentence"),
    [
        ("s", "0", "trial 0 is complete, and only a running one stops"),
        ("s", "9", "9 is no trial of study: it has 0 to 2"),
        ("c", "", "nothing is no trial's number"),
        ("c", "0 y=1", "change=y=1: write KEY=VALUE with a parameter of the study"),
        ("c", "0 x=[", "change=x=[: the study searches x in FloatDistribution"),
        ("c", "0 x=9", "change=x=9: the study searches x in FloatDistribution"),
    ],
)
def test_what_cannot_be_done_is_said(session, key, words, sentence):
    """A wrong number, parameter or value is answered in one sentence, and the study stays as it was."""
    before = len(session.study.trials)
    assert sentence in watch_terminal.answer(session.study, key, words)
    assert len(session.study.trials) == before


def _proposal(trial):
    from loraloop.sweep.runner import Proposal

    return Proposal(trial.number, trial._trial_id, trial.params)
