"""``loraloop -m hydra/sweeper=optuna`` and ``sweeps=NAME`` as a person gives them."""

from __future__ import annotations

import optuna
import pytest
import yaml

SMALL = ("source.runs=2", "trainer.max_steps=2", "evaluation.max_rows=8", "tracker=none")


def study(desk, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{desk.folder}/mlruns/optuna.db")


def test_the_shipped_sweep_runs_without_m_and_goes_on(desk):
    """``sweeps=rank_alpha_lr`` sweeps rank, alpha and learning rate, also without ``-m``, and more trials go on."""
    seen = desk("sweeps=rank_alpha_lr", *SMALL, "hydra.sweeper.n_trials=1")
    assert "0 of 1 trials done (go on with it: hydra.sweeper.study_name=rank_alpha_lr)" in seen.out
    assert "plan     up to 8 trials train at once, SuccessiveHalving ends those that fall behind, the next" in seen.out
    desk("-m", "sweeps=rank_alpha_lr", *SMALL, "hydra.sweeper.n_trials=2")
    first, second = study(desk, "rank_alpha_lr").trials
    assert first.params != second.params
    assert {"lora.r", "lora.alpha_over_r", "trainer.learning_rate"} == set(first.params)
    assert 1e-4 <= first.params["trainer.learning_rate"] <= 1e-2
    results = min(desk.folder.glob("mlruns/jobs/*/optimization_results.yaml"))
    assert yaml.safe_load(results.read_text())["best_params"] == first.params
    assert {path.parent.name for path in desk.folder.rglob("adapter/adapter_config.json")} == {"adapter"}


def test_the_places_of_a_pack_are_refilled_with_the_studys_next_trials(desk):
    """Of five trials two train at once, and a place that is free goes to the next proposal in the same pack."""
    size = ("hydra.launcher.max_trials=2", "hydra.sweeper.n_trials=5", "source.runs=2", "trainer.max_steps=8")
    seen = desk("sweeps=rank_alpha_lr", *size, "evaluation.max_rows=8", "tracker=none")
    assert (seen.out + seen.err).count("trials train at once:") == 1
    trials = study(desk, "rank_alpha_lr").trials
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    assert [trial.user_attrs["batch"] for trial in trials] == [2] * 5
    steps = sum(8 - trial.last_step for trial in trials if trial.state.name == "PRUNED")
    assert f"{steps / 40:.0%} of all steps: {steps} steps, {16 * steps} samples" in seen.out


def test_several_objectives_are_not_pruned_by_a_sweeps_file(desk):
    """The shipped sweep takes two objectives, and says that every trial runs to its end; a typed pruner is refused."""
    both = ("sweeps=rank_alpha_lr", "objective=[loss,trainable_parameters]", "hydra.sweeper.n_trials=1", *SMALL)
    assert "every trial runs to its end, the next ones take their places" in desk(*both).out
    assert "a pruner compares one value" in desk.attempt(*both, "hydra/sweeper/pruner=asha").err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lora.rr=choice(1,2)"], "lora.rr=1: there is no key lora.rr (did you mean lora.r?); lora has r, "),
        (["lora.r=interval(4,64)"], "lora.r=interval(4.0,64.0): lora.r=26.91796: input should be a valid integer"),
        (["lora.r=tag(log,interval(4,64))"], "lora.r=tag(log,interval(4.0,64.0)): lora.r="),
        (["lora.r=choice()"], "lora.r=choice(): ValueError while evaluating 'choice()': empty choice is not legal"),
        (["lora=choice(r8,r9)"], "lora=r9: there is no lora named 'r9'"),
        (["trainer.learning_rate=choice(0.1,-1)"], "trainer.learning_rate=choice(0.1,-1): trainer.learning_rate=-1"),
        (["lora.dropout=interval(0,1)"], "lora.dropout=interval(0.0,1.0): lora.dropout=1.0: input should be "),
        (["lora.r=8"], "nothing is swept"),
        (["lora.r=4,8", "lora.dropout=choice(0,0.1)", "+ocr.bogus=1"], "ocr.bogus is not a key of ocr; it has "),
        (["lora.r=4,8", "objective=task_accuracy", "hydra.sweeper.direction=minimize"],
         "hydra.sweeper.direction=minimize, and objective=task_accuracy is better the higher it is: leave "),
        (["lora.r=4,8", "objective=[loss,chrf]", "hydra.sweeper.direction=[minimize,minimize]"],
         "hydra.sweeper.direction=minimize,minimize, and objective=loss,chrf is better the lower it is (loss), "),
        (["lora.r=4,8", "objective=[]"], "objective=[] is empty; a run can return loss, "),
        (["lora.r=4,8", "hydra.sweeper.n_trial=3"], "hydra.sweeper.n_trial=3: there is no key hydra.sweeper.n_trial "),
    ],
)  # fmt: skip
def test_bad_input_ends_before_the_first_trial(desk, arguments, sentence):
    """An unknown key, a float interval over an integer, a value that a part refuses: code 2, one sentence, no study."""
    seen = desk.attempt("-m", "hydra/sweeper=optuna", *arguments)
    assert (seen.code, seen.out) == (2, "")
    assert seen.err.startswith(f"loraloop: {sentence}")
    assert seen.err.count("\n") == 1
    assert not {file for file in desk.files() if "/.hydra/" not in file}


def test_a_float_interval_over_an_integer_says_what_to_write(desk):
    """The way out of a float interval over an integer key is spelled out, with a logarithm where there was one."""
    for asked, written in (
        ("interval(4,64)", "int(interval(4,64))"),
        ("tag(log,interval(4,64))", "tag(log,int(interval(4,64)))"),
    ):
        seen = desk.attempt("-m", "hydra/sweeper=optuna", f"lora.r={asked}")
        assert seen.err.rstrip().endswith(f"for integers write {written}")


def test_a_value_that_no_model_takes_fails_its_trial(desk):
    """What only the model can refuse, such as a rank above its layers, fails each such trial once and no more."""
    seen = desk("-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "lora.r=4096,8192", *SMALL,
                "hydra.sweeper.study_name=large", "hydra.sweeper.max_failure_rate=1")  # fmt: skip
    assert [trial.state.name for trial in study(desk, "large").trials] == ["FAIL", "FAIL"]
    assert "failed    lora.r=4096" in seen.out


@pytest.mark.parametrize(
    ("objective", "directions"),
    [("task_accuracy", ["MAXIMIZE"]), ("loss", ["MINIMIZE"]), ("[chrf,seconds]", ["MAXIMIZE", "MINIMIZE"])],
)
def test_the_direction_follows_from_the_objective(desk, objective, directions):
    """A study searches each objective in the direction in which its metric is better."""
    desk("-m", "hydra/sweeper=optuna", "lora.r=choice(4,8)", f"objective={objective}", *SMALL,
         "hydra.sweeper.n_trials=1", "hydra.sweeper.study_name=s")  # fmt: skip
    assert [direction.name for direction in study(desk, "s").directions] == directions
