"""Training on the model's own answers, rewarded by rules."""

import signal
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from loraloop.errors import DataError, TrainingError
from loraloop.lora import Lora
from loraloop.trainer.grpo import BAD, PATIENCE, Grpo
from loraloop.trainer.rewards import Name

SETTINGS = {
    "epochs": 1, "batch_size": 16, "accumulation": 1, "answers": 4, "learning_rate": 1e-2, "max_length": 64,
    "max_new_tokens": 4, "log_steps": 1, "warmup": 0.0, "schedule": "constant",
}  # fmt: skip


def settings(**changes):
    return Grpo(**(SETTINGS | changes))


def dotted(example, answer):
    """The share of an answer's characters that are below 64: what a random model can learn to write in a few steps."""
    return sum(ord(letter) < 64 for letter in answer) / (len(answer) or 1)


def train(kit, output, run=None, part=None, reward=dotted, resume=None):
    loaded = kit.loaded()
    loaded.model.get_input_embeddings().weight.data.mul_(10)  # as they are, no adapter moves the nearly equal logits
    job = kit.job(loaded, Lora(r=4, dropout=0.0), kit.dataset(32, 4), run or kit.Run(), output, resume=resume)
    return (part or settings()).train(replace(job, reward=reward))


@pytest.fixture(scope="module")
def finished(kit, tmp_path_factory):
    """Two passes of eight steps of four questions, each answered four times."""
    run, output = kit.Run(), tmp_path_factory.mktemp("grpo")
    return train(kit, output, run, settings(epochs=2))[1], run, output


def test_what_is_rewarded_is_answered_more(kit, tmp_path):
    """The mean reward of 24 steps rises."""
    run = kit.Run()
    train(kit, tmp_path, run, settings(batch_size=128, answers=32, epochs=3))
    rewards = run.values("train/reward")
    assert np.mean(rewards[-8:]) > np.mean(rewards[:8]) + 0.03


def test_every_row_is_answered_as_often_as_asked(finished):
    """Each epoch takes all 32 turns that are learned four times, in steps of 16 answers, and counts the tokens."""
    training, run, _ = finished
    turns = 32 + 32 // 4  # every fourth row has an answer before the last
    assert training.steps == len(run.values("train/reward")) == 2 * turns // 4
    assert settings().steps(settings().sequences([1] * turns)) == turns // 4
    assert training.tokens > training.steps * 16


def test_an_interrupted_run_resumes_to_the_same_bits(kit, finished, tmp_path):
    """Ctrl+C and resume give the adapter of an uninterrupted run, also in the second epoch."""
    *_, output = finished
    run = kit.Run(lambda step: signal.raise_signal(signal.SIGINT) if step == 12 else None)
    with pytest.raises(KeyboardInterrupt):
        train(kit, tmp_path, run, settings(epochs=2))
    train(kit, tmp_path, part=settings(epochs=2), resume=tmp_path)
    one, other = kit.weights(output), kit.weights(tmp_path)
    assert all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(("epochs", "steps"), [(4, PATIENCE), (1, 10)])
def test_rewards_that_never_differ_end_the_run(kit, tmp_path, epochs, steps):
    """Where every group is rewarded alike a long or short run ends with what to change, and leaves no adapter."""
    part = settings(epochs=epochs, max_new_tokens=1)
    with pytest.raises(TrainingError, match=rf"in {steps} steps every group of 4 .*rewards\.RULE.*continue_from="):
        train(kit, tmp_path, part=part, reward=lambda example, answer: 0.0)
    assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    ("rewards", "said"),
    [
        ({"json": 1.0, "tool_calls": 0.5, "length": 0.0}, "json=1, tool_calls=0.5 .*: correct, length, similar, numb"),
        (dict.fromkeys(get_args(Name), 1.0), r"correct=1, tool_calls=1, .*not weighed: all are weighed\)"),
    ],
)
def test_rewards_that_never_differ_are_named(kit, tmp_path, rewards, said):
    """The message names the rewards that were weighed, and those that could be."""
    job = kit.job(kit.loaded(), Lora(r=4), kit.dataset(), kit.Run(), tmp_path)
    reward = settings(rewards=rewards)._rewarding(job, kit.rows(4))
    with pytest.raises(TrainingError, match=rf"rewarded alike by trainer.rewards {said}"):
        reward(["a"] * 4, [0] * 4)


def test_answers_must_make_whole_groups():
    """A step that would cut a group is refused with what to change."""
    with pytest.raises(ValueError, match=r"16 answers are no whole groups of answers=3: make it a multiple"):
        settings(answers=3)


@pytest.mark.parametrize(
    ("rewards", "said"),
    [({"correct": 0.0}, "rewards are all 0"), ({"correct": float("nan")}, "finite"), ({"json": -1.0}, "greater than")],
)
def test_weights_that_reward_nothing_are_refused(rewards, said):
    """Weights that are all 0, below 0 or no number are an error before anything is drawn."""
    with pytest.raises(ValueError, match=said):
        settings(rewards=rewards)


def test_too_few_questions_for_a_step_are_refused(kit, tmp_path):
    """Fewer questions than a step asks are an error with the settings that ask one at a time."""
    with pytest.raises(DataError, match=r"asks 64 questions, and 40 are left .*trainer\.batch_size=4"):
        train(kit, tmp_path, part=settings(batch_size=256))


def test_answers_that_are_labelled_bad_are_no_truth(kit):
    """A row with a bad answer is left out, and every learned turn of the others is a question."""
    data = kit.dataset(8, 2)
    rows = (replace(data.train[0], example=replace(data.train[0].example, label=False)), *data.train[1:])
    fitting = settings().fitting(rows, kit.loaded().tokenizer, "training")
    assert len(fitting.rows) == 7 + 2
    assert [each.reason for each in fitting.left_out] == [BAD]
