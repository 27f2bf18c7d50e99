"""Which trial comes next, what becomes of those that fail, and what a stopped sweep leaves."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal

import pytest

from loraloop.errors import ConfigError, PrunedError, SweepError, TrainingError
from loraloop.sweep.ending import LostTogetherError
from loraloop.sweep.opening import open_study
from loraloop.sweep.space import Choice, Numbers

SPACE = {"x": Numbers(-4.0, 4.0), "k": Numbers(1, 9, step=2, integer=True), "m": Choice(("a", "b"), ("a", "b"))}
NUMBERS = {"x": Numbers(-4.0, 4.0), "y": Numbers(0.1, 9.0, log=True)}
GRID = {"k": SPACE["k"], "m": SPACE["m"]}
SAMPLERS = {"TPESampler": SPACE, "RandomSampler": SPACE, "QMCSampler": NUMBERS, "GridSampler": GRID}


def proposals(ended):
    return [dict(finished.params) for finished in ended]


def kill(bench, sweep, space, after):
    """A sweep of which nothing is heard any more once it has asked for the trial numbered ``after``."""
    bench.carry_out(sweep, space, most=after)
    opened = open_study(sweep, "", space, {})
    session = opened.__enter__()
    session.ask(1)
    session.recover = lambda **_: 0
    opened.__exit__(None, None, None)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_another_seed_proposes_otherwise(sampler, bench):
    """With another seed the same sampler proposes other trials."""
    sweeps = [(bench / str(seed)).settings(sampler, seed=seed, n_trials=2) for seed in (3, 4)]
    first, second = (bench.carry_out(sweep, SAMPLERS[sampler]) for sweep in sweeps)
    assert proposals(first) != proposals(second)


@pytest.mark.parametrize("sampler", [*SAMPLERS, "CmaEsSampler", "NSGAIISampler", "GPSampler"])
def test_a_sweep_in_two_parts_is_the_sweep_in_one(sampler, bench):
    """A sweep that stopped between two trials goes on with the proposals that it would have made."""
    space = SAMPLERS.get(sampler, NUMBERS)
    whole = bench.carry_out((bench / "whole").settings(sampler), space)
    parted = (bench / "parted").settings(sampler)
    parts = bench.carry_out(parted, space, most=3) + bench.carry_out(parted, space)
    assert proposals(parts) == proposals(whole)
    assert [finished.number for finished in parts] == list(range(6))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_killed_sweep_loses_and_repeats_nothing(sampler, bench):
    """A trial that a killed sweep left running fails and comes again next; the others are as without it."""
    space = SAMPLERS[sampler]
    whole = bench.carry_out((bench / "whole").settings(sampler), space)
    sweep = bench.settings(sampler)
    kill(bench, sweep, space, 3)
    bench.carry_out(sweep, space)
    kept = bench.trials
    assert [trial.state.name for trial in kept] == ["COMPLETE"] * 3 + ["FAIL"] + ["COMPLETE"] * 3
    assert kept[4].params == kept[3].params
    assert kept[4].user_attrs["rerun_of"] == 3
    assert [trial.params for trial in kept if trial.state.name == "COMPLETE"] == proposals(whole)


def test_a_quasi_random_sweep_is_one_sequence(bench):
    """The sampler is built anew for each trial, and still four points after the first lie in four quarters."""
    _, *points = bench.carry_out(bench.settings("QMCSampler", n_trials=5), {"x": NUMBERS["x"]})
    assert {int((finished.params["x"] + 4) // 2) for finished in points} == {0, 1, 2, 3}


def test_more_trials_go_on_with_the_same_study(bench):
    """``n_trials`` counts those of earlier sweeps: 6 after 4 are 2 more, and 6 after 6 are none."""
    assert len(bench.carry_out(bench.settings(n_trials=4))) == 4
    assert [finished.number for finished in bench.carry_out(bench.settings())] == [4, 5]
    assert bench.carry_out(bench.settings()) == []


def test_a_grid_ends_with_its_last_point(bench):
    """Every combination comes once, whatever ``n_trials`` allows beyond."""
    ended = bench.carry_out(bench.settings("GridSampler", n_trials=100), GRID)
    points = {tuple(sorted(params.items())) for params in proposals(ended)}
    assert len(ended) == len(points) == 5 * 2


def test_a_grid_goes_on_with_another_seed_without_repeating_or_skipping_a_point(bench):
    """The order of a grid is the one that its study was begun with, whatever the sampler's seed is later."""
    for seed, most in ((3, 4), (8, 3), (None, 100)):
        bench.carry_out(bench.settings("GridSampler", seed=seed, n_trials=100), GRID, most=most)
    points = {tuple(sorted(trial.params.items())) for trial in bench.trials}
    assert len(bench.trials) == len(points) == 5 * 2


def test_a_batch_is_numbered_one_after_the_other(bench):
    """Trials that are handed out together differ and have neighbouring numbers, also among those tried again."""
    sweep = bench.settings("TPESampler", n_jobs=3, n_trials=6)
    with open_study(sweep, "", SPACE, {}) as session:
        first = session.ask(3)
        for proposal in first:
            session.tell(proposal, OSError("lost") if proposal.number == 1 else 1.0)
        second = session.ask(3)
    assert [proposal.number for proposal in first + second] == [0, 1, 2, 3, 4, 5]
    assert second[0].params == first[1].params
    assert len({str(proposal.params) for proposal in first + second}) == 5


def test_a_crash_is_tried_again_and_counts_once(bench):
    """A crashed trial comes again with its parameters and, when that succeeds, is one trial and no failure."""
    answers = itertools.chain([1.0, OSError("lost worker")], itertools.repeat(0.5))
    sweep = bench.settings(n_trials=4, max_failure_rate=0.0)
    bench.carry_out(sweep, answer=lambda params: next(answers))
    kept = bench.trials
    assert [trial.state.name for trial in kept] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert kept[1].user_attrs["reason"] == "OSError: lost worker"
    assert (kept[2].params, kept[2].user_attrs["rerun_of"]) == (kept[1].params, 1)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_retries_have_an_end(retries, bench):
    """A trial that crashes every time is tried ``max_retries`` times more, and then is one failure."""
    sweep = bench.settings(n_trials=2, max_retries=retries, max_failure_rate=1.0)
    bench.carry_out(sweep, answer=lambda params: RuntimeError("again"))
    assert len(bench.trials) == 2 * (1 + retries)


@pytest.mark.parametrize("retries", [0, 2])
def test_a_trial_that_kills_its_process_is_tried_max_retries_more_times(retries, bench):
    """A trial whose process is killed at each attempt is tried ``max_retries`` + 1 times, then fails for good."""
    sweep = bench.settings(n_trials=2, max_retries=retries)

    def killed() -> None:
        with open_study(sweep, "", SPACE, {}) as session:
            session.ask(1)
            os.kill(os.getpid(), signal.SIGKILL)

    for _ in range(retries + 1):
        process = multiprocessing.get_context("fork").Process(target=killed)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    bench.carry_out(sweep)
    first, *others = bench.trials
    states = [trial.state.name for trial in bench.trials]
    assert states == ["FAIL"] * (retries + 1) + ["COMPLETE"]
    assert all(trial.params == first.params for trial in others[:retries])
    assert others[-1].params != first.params
    assert bench.trials[retries].user_attrs["reason"] == f"its process died in attempt {retries + 1}"


def test_a_trial_that_kills_its_pack_costs_its_neighbours_no_attempt(bench):
    """Of a pack of four whose process dies whenever one of them is in it, that one alone fails for good."""
    sweep = bench.settings(n_trials=4, n_jobs=4, max_retries=1)
    culprit = bench.carry_out((bench / "other").settings(n_trials=4))[2].params

    def work() -> None:
        with open_study(sweep, "", SPACE, {}) as session:
            while size := session.batch_size(sweep.n_jobs):
                batch = session.ask(size)
                if any(proposal.params == culprit for proposal in batch):
                    os.kill(os.getpid(), signal.SIGKILL)
                for proposal in batch:
                    session.tell(proposal, bench.value(proposal.params))

    codes = []
    while codes[-1:] != [0] and len(codes) < 9:
        process = multiprocessing.get_context("fork").Process(target=work)
        process.start()
        process.join()
        codes.append(process.exitcode)
    assert codes == [-signal.SIGKILL] * 4 + [0]  # four, two, alone, alone again
    completed = [trial.params for trial in bench.trials if trial.state.name == "COMPLETE"]
    assert len(completed) == 3
    assert culprit not in completed
    (last,) = [trial for trial in bench.trials if trial.user_attrs.get("attempt") == 2]
    assert (last.params, last.user_attrs["reason"]) == (culprit, "its process died in attempt 2")


def test_trials_that_were_lost_together_cost_no_attempt(bench):
    """Of a batch of two that was lost at once both come again, uncharged; one that is lost alone is charged."""
    sweep = bench.settings(n_trials=2, n_jobs=2, max_retries=0)
    with open_study(sweep, "", SPACE, {}) as session:
        for proposal in session.ask(2):
            session.tell(proposal, LostTogetherError("the job's process ended"))
        assert session.failures == 0
        assert session.batch_size(2) == 1
        (alone,) = session.ask(1)
        session.tell(alone, LostTogetherError("the job's process ended"))
        assert session.failures == 1
        assert session.batch_size(2) == 1


def test_trials_that_died_together_stay_apart_over_an_interrupt(bench):
    """A limit on the batch outlives an interrupt, and new trials fill no batch beyond it."""
    sweep = bench.settings(n_trials=6, n_jobs=4)
    with open_study(sweep, "", SPACE, {}) as session:
        session.ask(4)
        session.recover(died=True)
        assert session.batch_size(4) == 2
        session.ask(2)
        session.recover(died=False)
        assert session.batch_size(4) == 2
        session.ask(4)
        assert session.batch_size(4) == 2


@pytest.mark.parametrize("answer", [TrainingError("loss is not finite"), float("nan"), None, (1.0, 2.0)])
def test_what_would_fail_again_is_not_tried_again(answer, bench):
    """An error of loraloop's own, NaN, nothing or a wrong number of values fails one trial, and the sweep goes on."""
    answers = itertools.chain([answer], itertools.repeat(1.0))
    sweep = bench.settings(n_trials=4)
    bench.carry_out(sweep, answer=lambda params: next(answers))
    assert [trial.state.name for trial in bench.trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]


@pytest.mark.parametrize(("rate", "failures"), [(0.0, 1), (0.25, 2), (1.0, 6)])
def test_the_failure_budget_is_a_share_of_all_trials(rate, failures, bench):
    """A sweep of six stops with the failure that goes beyond the share, and names it; a share of one stops never."""
    sweep = bench.settings(max_failure_rate=rate)
    if rate == 1.0:
        bench.carry_out(sweep, answer=lambda params: TrainingError("diverged"))
    else:
        with pytest.raises(
            SweepError, match=rf"^{failures} of 6 trials failed.* the last, trial {failures - 1}: diverged"
        ):
            bench.carry_out(sweep, answer=lambda params: TrainingError("diverged"))
    assert len(bench.trials) == failures


def test_a_sweep_that_was_stopped_by_failures_can_go_on(bench):
    """Failures of an earlier sweep are not counted again: with the cause away the study is completed."""
    with pytest.raises(SweepError):
        bench.carry_out(bench.settings(), answer=lambda params: TrainingError("disk full"))
    assert len(bench.carry_out(bench.settings())) == 6 - 2


def test_a_pruned_trial_counts_and_does_not_fail(bench):
    """Pruned trials are PRUNED, are among ``n_trials``, and use up nothing of the failure budget."""
    sweep = bench.settings(n_trials=3, max_failure_rate=0.0)
    bench.carry_out(sweep, answer=lambda params: PrunedError("at step 2"))
    assert [trial.state.name for trial in bench.trials] == ["PRUNED"] * 3


def test_an_interrupt_leaves_a_study_that_continues(bench):
    """Ctrl+C in a batch of two closes both, and the next sweep begins with their parameters."""

    def interrupt(params):
        raise KeyboardInterrupt

    sweep = bench.settings(n_jobs=2, n_trials=4)
    with pytest.raises(KeyboardInterrupt):
        bench.carry_out(sweep, answer=interrupt)
    left = bench.trials
    assert [trial.state.name for trial in left] == ["FAIL", "FAIL", "WAITING", "WAITING"]
    assert len(bench.carry_out(sweep)) == 4
    assert [trial.params for trial in bench.trials[2:4]] == [trial.params for trial in left[:2]]


def test_a_trial_killed_before_it_had_parameters_is_proposed_again(bench):
    """A trial without parameters is closed, and its place in the sequence is proposed as it would have been."""
    sweep = bench.settings()
    with open_study(sweep, "", SPACE, {}) as session:
        session.study.ask()
    bench.carry_out(sweep)
    whole = bench.carry_out((bench / "whole").settings())
    assert [trial.params for trial in bench.trials if trial.params] == proposals(whole)


def test_a_result_that_the_launcher_lost_is_found(bench):
    """A job that kept its result with its trial has completed, though the launcher raised for it."""
    with open_study(bench.settings(), "", SPACE, {}) as session:
        done, lost = session.ask(2)
        session.identity(done).finish(0.25)
        outcomes = [session.tell(proposal, RuntimeError("a worker was killed")).ending for proposal in (done, lost)]
    assert [(outcome.state, outcome.values) for outcome in outcomes] == [("COMPLETE", (0.25,)), ("FAIL", None)]


def test_a_custom_search_space_adds_parameters(bench):
    """What a function suggests is proposed with the rest, and tried again with the rest."""
    with open_study(bench.settings(), "", NUMBERS, {}) as session:
        (first,) = session.ask(1, lambda trial: trial.suggest_float("z", trial.params["x"], 5.0))
        session.tell(first, OSError())
        (again,) = session.ask(1, lambda trial: trial.suggest_float("z", trial.params["x"], 5.0))
    assert set(first.params) == {"x", "y", "z"}
    assert again.params == first.params


def test_what_a_custom_search_space_adds_to_a_grid_follows_from_the_seed(bench):
    """Two grids of one seed get the same further parameters, and another seed gets others."""
    found = []
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        with open_study((bench / name).settings("GridSampler", seed=seed), "", GRID, {}) as session:
            asked = session.ask(3, lambda trial: trial.suggest_float("z", 0.0, 1.0))
        found.append([trial.params["z"] for trial in asked])
    assert found[0] == found[1] != found[2]


def test_the_best_of_several_objectives_are_those_that_none_beats(bench):
    """With two directions the best are the trials that no other one dominates."""
    answers = iter([(1.0, 1.0), (2.0, 2.0), (3.0, 1.0), (0.5, 0.5)])
    sweep = bench.settings("NSGAIISampler", n_trials=4, direction=["minimize", "maximize"])
    with open_study(sweep, "", NUMBERS, {}) as session:
        assert session.best() == []
        for proposal in session.ask(4):
            session.tell(proposal, next(answers))
        assert sorted(trial.number for trial in session.best()) == [0, 1, 3]


def test_a_grid_over_an_interval_is_refused(bench):
    """The grid sampler names the key whose values cannot be counted."""
    with pytest.raises(ConfigError, match=r"sampler=grid: x=interval\(-4.0,4.0\) has no countable values"):
        bench.carry_out(bench.settings("GridSampler"), {"x": NUMBERS["x"], "m": Choice(("a",), ("a",))})


def test_no_place_is_refilled_while_trials_that_died_together_are_tried_again(bench):
    """Smaller batches find out which trial kills its process; afterwards a refilled trial counts as one of its pack."""
    sweep = bench.settings(n_jobs=4, n_trials=8)
    with open_study(sweep, "", SPACE, {}) as session:
        session.ask(4)
        session.recover(died=True)
        for _ in range(2):
            assert session.refill_size(1) == 0
            for proposal in session.ask(session.batch_size(4)):
                assert session.refill_size(1) == 0
                session.tell(proposal, 1.0)
        assert session.refill_size(9) == 4
        session.ask(1, together=4)
    assert bench.trials[-2].user_attrs["batch"] == 4
