"""Training that begins with the weights of an adapter that is there, whatever its loss."""

import math
import signal
from dataclasses import replace

import numpy as np
import pytest

from loraloop.errors import TrainingError
from loraloop.lora import Lora
from loraloop.trainer.dpo import Dpo
from loraloop.trainer.grpo import Grpo
from loraloop.trainer.kto import Kto
from loraloop.trainer.sft import Sft

SETTINGS = {"epochs": 2, "accumulation": 2, "learning_rate": 1e-2, "max_length": 64, "log_steps": 1}
DRAWS = {"batch_size": 8, "answers": 4, "max_new_tokens": 4, "beta": 0.04}
"""What GRPO needs besides; its reference counts where ``beta`` is above 0."""
AT_REFERENCE = {Dpo: ("loss", math.log(2)), Kto: ("loss", 0.5), Grpo: ("kl", 0.0)}


def data(kit):
    made = kit.dataset(16, 4, rejected=True)
    rows = tuple(
        replace(row, example=replace(row.example, label=number % 2 == 0)) for number, row in enumerate(made.train)
    )
    return replace(made, train=rows)


@pytest.fixture(scope="module")
def first(kit, tmp_path_factory):
    """An adapter after two epochs, and the losses on the way."""
    run, output = kit.Run(), tmp_path_factory.mktemp("first")
    job = kit.job(kit.loaded(), Lora(r=4), kit.dataset(16, 4), run, output)
    Sft(**SETTINGS).train(job)
    return output / "adapter", run.values("train/loss")


def train(kit, trainer, output, begin, run=None, resume=None):
    job = kit.job(kit.loaded(), Lora(r=4), data(kit), run or kit.Run(), output, resume=resume)
    part = trainer(**SETTINGS, **(DRAWS if trainer is Grpo else {}))
    return part.train(replace(job, begin_from=begin, reward=lambda _, answer: len(set(answer))))


@pytest.mark.parametrize("trainer", [Sft, *AT_REFERENCE])
def test_the_copy_of_the_reference_is_not_counted_as_base(kit, first, tmp_path, trainer):
    """A continuation has the parameters of the base and of one adapter, as its estimate says."""
    job = kit.job(kit.loaded(), Lora(r=4), data(kit), kit.Run(), tmp_path)
    expected = trainer(**SETTINGS, **(DRAWS if trainer is Grpo else {})).estimate(job.loaded, job.lora, job.data)
    training = train(kit, trainer, tmp_path, first[0])[1]
    assert training.trainable_parameters == expected.trainable_parameters
    assert training.total_parameters == expected.total_parameters


def test_supervised_training_begins_where_the_adapter_ended(kit, first, tmp_path):
    """The first loss is near the last one of the adapter's own training, far below that of a new adapter."""
    adapter, losses = first
    run = kit.Run()
    train(kit, Sft, tmp_path, adapter, run)
    assert run.values("train/loss")[0] < (losses[0] + losses[-1]) / 2


@pytest.mark.parametrize("trainer", AT_REFERENCE)
def test_the_reference_is_the_adapter_as_it_was(kit, first, tmp_path, trainer):
    """The first step finds equal probabilities, and the copy that the adapter is measured against is not kept."""
    run = kit.Run()
    train(kit, trainer, tmp_path, first[0], run)
    key, expected = AT_REFERENCE[trainer]
    assert run.values(f"train/{key}")[0] == pytest.approx(expected, abs=1e-4)
    assert {path.name for path in (tmp_path / "adapter").iterdir() if path.is_dir()} == set()


@pytest.mark.parametrize("trainer", [Sft, Dpo, Kto, Grpo])
def test_an_interrupted_continuation_resumes_to_the_same_bits(kit, first, tmp_path, trainer):
    """Ctrl+C and resume give the adapter of an uninterrupted continuation."""
    train(kit, trainer, tmp_path / "whole", first[0])
    run = kit.Run(lambda step: signal.raise_signal(signal.SIGINT) if step == 2 else None)
    with pytest.raises(KeyboardInterrupt):
        train(kit, trainer, tmp_path / "part", first[0], run)
    train(kit, trainer, tmp_path / "part", first[0], resume=tmp_path / "part")
    one, other = kit.weights(tmp_path / "whole"), kit.weights(tmp_path / "part")
    assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_checkpoint_of_a_new_adapter_is_no_continuation(kit, first, tmp_path):
    """A run that began anew is not resumed with continue_from."""
    run = kit.Run(lambda step: signal.raise_signal(signal.SIGINT) if step == 2 else None)
    with pytest.raises(KeyboardInterrupt):
        train(kit, Sft, tmp_path, None, run)
    with pytest.raises(TrainingError, match="continue_from was left out, is the adapter with weights"):
        train(kit, Sft, tmp_path, first[0], resume=tmp_path)


def test_a_checkpoint_of_another_trainer_is_told_by_its_name(kit, first, tmp_path):
    """A run of KTO that DPO is to go on with is refused as one of KTO, whatever settings differ besides."""
    run = kit.Run(lambda step: signal.raise_signal(signal.SIGINT) if step == 2 else None)
    with pytest.raises(KeyboardInterrupt):
        train(kit, Kto, tmp_path, first[0], run)
    with pytest.raises(TrainingError, match="is of trainer=kto, and trainer=dpo cannot go on"):
        train(kit, Dpo, tmp_path, first[0], resume=tmp_path)
