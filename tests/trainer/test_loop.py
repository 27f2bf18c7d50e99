"""The loss and metrics of our SFT trainer against TRL's own."""

from types import SimpleNamespace

import numpy as np
import pytest

from loraloop.errors import TrainingError
from loraloop.lora import Lora
from loraloop.trainer.encode import encode
from loraloop.trainer.loop import grouped, sft_trainer


@pytest.fixture(scope="module")
def curves(kit, tmp_path_factory):
    """Logged steps and adapter of TRL's trainer and ours, in passes of 4 and of 8 rows, without dropout."""
    from datasets import Dataset
    from trl.trainer.sft_config import SFTConfig
    from trl.trainer.sft_trainer import SFTTrainer

    encoded = encode(kit.rows(28), kit.tokenizer())
    rows = Dataset.from_list([{"input_ids": row.input_ids, "labels": row.labels} for row in encoded])

    def train(cls, micro):
        args = SFTConfig(
            output_dir=str(tmp_path_factory.mktemp("curve")),
            num_train_epochs=2,
            per_device_train_batch_size=micro,
            gradient_accumulation_steps=8 // micro,
            learning_rate=1e-2,
            logging_steps=1,
            eval_strategy="epoch",
            gradient_checkpointing=False,
            bf16=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        trainer = cls(
            model=kit.llama(),
            args=args,
            train_dataset=rows,
            eval_dataset=rows,
            processing_class=kit.tokenizer(),
            peft_config=Lora(r=4, dropout=0.0).peft_config(),
        )
        trainer.lengths = [len(row.input_ids) for row in encoded]
        trainer.train()
        return trainer

    stock = grouped(SFTTrainer)
    return {
        name: train(cls, m)
        for name, cls, m in (("trl", stock, 4), ("ours", sft_trainer(), 4), ("one", sft_trainer(), 8))
    }


def logged(trainer, key):
    return np.array([entry[key] for entry in trainer.state.log_history if key in entry])


@pytest.mark.parametrize("key", ["loss", "grad_norm", "entropy", "mean_token_accuracy", "num_tokens", "learning_rate"])
def test_curves_equal_trls(curves, key):
    """Loss, gradient norm and TRL's metrics equal TRL's at every step to float rounding, uneven last batch included."""
    theirs, ours = logged(curves["trl"], key), logged(curves["ours"], key)
    assert len(theirs) == 8
    assert ours == pytest.approx(theirs, rel=2e-5, abs=1e-6)


@pytest.mark.parametrize("key", ["eval_loss", "eval_entropy", "eval_mean_token_accuracy"])
def test_evaluations_equal_trls(curves, key):
    """The validation metrics equal TRL's."""
    assert logged(curves["ours"], key) == pytest.approx(logged(curves["trl"], key), rel=2e-5)


def test_one_pass_equals_accumulated_passes(curves):
    """One pass over a step's rows gives the losses and the adapter of the accumulated passes, to float rounding."""
    assert logged(curves["one"], "loss") == pytest.approx(logged(curves["ours"], "loss"), rel=2e-5)
    pairs = zip(*(curves[name].model.state_dict().values() for name in ("one", "ours")), strict=True)
    assert max(float((a - b).abs().max()) for a, b in pairs) < 1e-4


def test_operations_are_counted_as_transformers_counts(curves):
    """The cached count of floating point operations is transformers' own."""
    import torch
    from transformers import Trainer

    trainer = curves["ours"]
    inputs = {"input_ids": torch.zeros(3, 7, dtype=torch.long)}
    assert trainer.floating_point_ops(inputs) == Trainer.floating_point_ops(trainer, inputs) > 0


def test_a_loss_is_read_once_a_step_and_before_the_optimizer_uses_it(monkeypatch):
    """Of four micro-batches the loss is read at the last alone, and one of them that is not finite raises there."""
    import torch

    losses = iter([1.0, 2.0, 3.0, 4.0, 1.0, float("nan"), 3.0, 4.0])

    class Stock:
        accelerator, state, args = (
            SimpleNamespace(),
            SimpleNamespace(global_step=1, num_input_tokens_seen=0),
            SimpleNamespace(learning_rate=1.0),
        )

        def remove_callback(self, callback):
            pass

        def training_step(self):
            return torch.tensor(next(losses))

    trainer, read = grouped(Stock)(), []
    real = torch.Tensor.item
    monkeypatch.setattr(torch.Tensor, "item", lambda tensor: read.append(tensor) or real(tensor))
    for number in range(7):
        trainer.accelerator.sync_gradients = number == 3
        trainer.training_step()
    assert len(read) == 1
    trainer.accelerator.sync_gradients = True
    with pytest.raises(TrainingError, match="the loss is nan at step 2"):
        trainer.training_step()


def test_only_scored_positions_are_projected(kit, tmp_path):
    """Rows of several lengths score different columns, and the head is given as many positions as are scored."""
    rows = kit.rows(8)
    encoded = encode(rows, kit.tokenizer())
    loaded, seen = kit.loaded(), []
    loaded.model.get_output_embeddings().register_forward_hook(lambda head, inputs, out: seen.append(out.shape[:-1]))
    settings = kit.settings(epochs=1, batch_size=8, accumulation=1)
    settings.train(kit.job(loaded, Lora(r=4), kit.dataset(8, 0), kit.Run(), tmp_path))
    assert seen == [(1, sum(row.scored for row in encoded))]
