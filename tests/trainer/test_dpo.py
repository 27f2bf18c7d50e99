"""Preference training."""

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from loraloop.errors import ConfigError, DataError, TrainingError
from loraloop.lora import Lora
from loraloop.trainer.dpo import Dpo, columns
from loraloop.workflows import rows


def settings(**changes):
    return Dpo(**({"epochs": 4, "accumulation": 2, "learning_rate": 1e-2, "max_length": 64, "log_steps": 1} | changes))


def train(kit, output, run=None, part=None, data=None):
    data = data or kit.dataset(16, 4, rejected=True)
    return (part or settings()).train(kit.job(kit.loaded(), Lora(r=4), data, run or kit.Run(), output))


@pytest.fixture(scope="module")
def finished(kit, tmp_path_factory):
    """A run of eight steps and what it left."""
    run, output = kit.Run(), tmp_path_factory.mktemp("dpo")
    return train(kit, output, run)[1], run, output


def test_training_begins_at_the_reference_and_leaves_it(finished):
    """The first loss is ln 2, since the untrained adapter is its own reference; then the margin grows."""
    training, run, _ = finished
    losses, margins = run.values("train/loss"), run.values("train/rewards/margins")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4)
    assert losses[-1] < 0.9 * losses[0]
    assert margins[-1] > 0 == pytest.approx(margins[0], abs=1e-6)
    assert training.steps == 8
    assert len(run.values("eval/rewards/accuracies")) == 4


@pytest.mark.parametrize("change", [{"init": "pissa"}, {"init": "olora"}, {"init": "pissa_niter_4"}, {"bias": "all"}])
def test_an_adapter_that_changes_its_reference_is_refused(kit, tmp_path, change):
    """Whatever moves the base is refused before training, by a message that says what to write instead."""
    lora = Lora(r=4, **change)
    with pytest.raises(ConfigError, match=r"changes the base, .* use lora\.init=default"):
        settings().train(kit.job(kit.loaded(), lora, kit.dataset(16, 4, rejected=True), kit.Run(), tmp_path))
    with pytest.raises(ConfigError, match="trainer=sft"):
        rows.fits(kit.loaded(), lora, settings())


def test_rows_without_a_rejected_answer_are_refused(kit, tmp_path):
    """Without a single pair the error says how many rows had a rejected answer, and what to use instead."""
    with pytest.raises(DataError, match=r"0 of 8 training rows have one: .*trainer=sft"):
        train(kit, tmp_path, data=kit.dataset(8, 2))


def test_rows_that_teach_no_preference_are_left_out_and_named(kit, tmp_path, caplog):
    """Rows without a rejected answer and with an equal one are counted by reason, and only pairs are trained on."""
    pairs = kit.dataset(8, 2, rejected=True)
    equal = [replace(row, rejected=row.completion) for row in pairs.train[:2]]
    alone = [replace(row, rejected=None) for row in pairs.train[2:5]]
    training = train(kit, tmp_path, data=replace(pairs, train=(*equal, *alone, *pairs.train)))[1]
    assert training.tokens == settings().estimate(kit.loaded(), Lora(r=4), pairs).tokens
    assert "2 training rows are left out, the first is" in caplog.text
    assert "its rejected answer equals its answer" in caplog.text
    assert "3 training rows are left out" in caplog.text


def test_a_rejected_answer_must_fit_as_well(kit, tmp_path):
    """A prompt that fills max_length is refused as in supervised training."""
    with pytest.raises(TrainingError, match="rows have more tokens than"):
        train(kit, tmp_path, part=settings(max_length=8))


def test_the_token_ids_are_those_of_trl(kit):
    """Where no token reaches over the boundary TRL prepares the same columns from the texts."""
    from datasets import Dataset
    from trl.trainer.dpo_trainer import DPOTrainer

    fitting = settings().fitting(kit.dataset(8, 2, rejected=True).train, kit.loaded().tokenizer, "training")
    texts = [{"prompt": row.prompt, "chosen": row.completion, "rejected": row.rejected} for row in fitting.rows]
    tokenizer = kit.loaded().tokenizer
    state, args = SimpleNamespace(_tokenizer=tokenizer), SimpleNamespace(dataset_num_proc=None, max_length=None)
    theirs = DPOTrainer._prepare_dataset(state, Dataset.from_list(texts), tokenizer, args, "train")
    ours = columns(fitting)
    assert all(ours[name] == theirs[name] for name in ours.column_names)
