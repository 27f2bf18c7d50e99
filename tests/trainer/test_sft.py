"""Supervised fine-tuning, from rows to an adapter."""

import json
import math
import shutil
import signal

import numpy as np
import pytest

from loraloop.errors import ConfigError, PrunedError, TrainingError
from loraloop.lora import Lora
from loraloop.trainer.sft import Sft


def same(one, other):
    """Whether two sets of tensors are equal to the last bit."""
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def finished(kit, tmp_path_factory):
    """A run of six steps and what it left."""
    output, run = tmp_path_factory.mktemp("finished"), kit.Run()
    model, training = kit.settings().train(kit.job(kit.loaded(), Lora(r=4), kit.dataset(), run, output))
    return model, training, run, output


def test_the_loss_falls_and_the_counts_hold(kit, finished):
    """Training lowers the loss and reports the steps, tokens and parameters that the estimate named."""
    _, training, run, _ = finished
    losses = run.values("train/loss")
    assert losses[-1] < losses[0]
    expected = kit.settings().estimate(kit.loaded(), Lora(r=4), kit.dataset())
    assert (training.steps, training.tokens) == (expected.steps, expected.tokens) == (6, training.tokens)
    assert training.trainable_parameters == expected.trainable_parameters == 2048
    assert training.total_parameters == expected.total_parameters
    assert training.peak_memory_bytes > 0
    assert training.seconds > 0


def test_metrics_have_the_same_short_keys_in_every_run(finished):
    """Every logged step has loss, learning rate, gradient norm, tokens and speed; every epoch a validation loss."""
    _, training, run, _ = finished
    step = {"loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "entropy", "mean_token_accuracy"}
    kinds = {frozenset(values) for _, values in run.logged if "train/loss" in values}
    assert kinds == {frozenset(f"train/{name}" for name in step)}
    assert [entry["step"] for entry in training.history if "eval/loss" in entry] == [3, 6]
    assert run.parameters["trainer.chosen.micro_batch"] == 8


def test_the_adapter_loads_with_plain_peft(kit, finished):
    """The saved folder is PEFT's, in safetensors, and answers like the model that was trained."""
    import torch
    from peft import PeftModel

    model, training, _, output = finished
    assert training.adapter == output / "adapter"
    assert (training.adapter / "adapter_model.safetensors").is_file()
    loaded = PeftModel.from_pretrained(kit.llama(), training.adapter).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, model(ids).logits)
    config = json.loads((training.adapter / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.05)


def test_the_seed_decides_every_bit(kit, finished, tmp_path):
    """The same seed gives the same adapter to the last bit, another seed another one."""
    *_, output = finished
    for seed, equal in ((0, True), (1, False)):
        kit.settings(seed=seed).train(kit.job(kit.loaded(), Lora(r=4), kit.dataset(), kit.Run(), tmp_path / str(seed)))
        assert same(kit.weights(output), kit.weights(tmp_path / str(seed))) is equal


def interrupt_at(step):
    """Press Ctrl+C when that step is logged."""
    return lambda logged: signal.raise_signal(signal.SIGINT) if logged == step else None


@pytest.fixture(scope="module")
def stopped(kit, tmp_path_factory):
    """The output folder of a run that Ctrl+C stopped in its second epoch, with checkpoints of every second step."""
    output = tmp_path_factory.mktemp("stopped")
    with pytest.raises(KeyboardInterrupt):
        kit.settings(save_steps=2).train(
            kit.job(kit.loaded(), Lora(r=4), kit.dataset(), kit.Run(interrupt_at(4)), output)
        )
    return output


@pytest.fixture
def interrupted(stopped, tmp_path):
    """A copy of that folder, to go on with."""
    return shutil.copytree(stopped, tmp_path / "interrupted")


@pytest.mark.fault("damaged newest checkpoint", "train", "resumed from the one before, to the same adapter")
@pytest.mark.parametrize("victim", ["optimizer.pt", "adapter_model.safetensors", "manifest.json"])
def test_a_damaged_checkpoint_does_not_change_the_result(kit, finished, interrupted, victim):
    """With the newest checkpoint damaged, the run resumes from the one before, to the same adapter."""
    *_, output = finished
    (interrupted / "checkpoints" / "checkpoint-5" / victim).unlink()
    kit.settings().train(kit.job(kit.loaded(), Lora(r=4), kit.dataset(), kit.Run(), interrupted, resume=interrupted))
    assert same(kit.weights(output), kit.weights(interrupted))


def test_the_history_of_a_resumed_run_begins_at_the_first_step(kit, finished, interrupted):
    """The losses of a resumed run, which are drawn, are those of an uninterrupted one, step by step."""
    training = kit.settings().train(
        kit.job(kit.loaded(), Lora(r=4), kit.dataset(), kit.Run(), interrupted, resume=interrupted)
    )[1]

    def drawn(history):
        return [(entry["step"], entry[key]) for entry in history for key in ("train/loss", "eval/loss") if key in entry]

    assert drawn(training.history) == drawn(finished[1].history)


def test_resuming_with_other_data_is_refused(kit, interrupted):
    """A checkpoint of other rows is refused: the result would be neither run's."""
    other = kit.dataset(fingerprint="other")
    with pytest.raises(TrainingError, match="dataset was data, is other"):
        kit.settings().train(kit.job(kit.loaded(), Lora(r=4), other, kit.Run(), interrupted, resume=interrupted))


def test_a_folder_in_use_is_refused(kit, finished, interrupted):
    """Neither a finished adapter nor an interrupted run's checkpoints are written over."""
    *_, output = finished
    for folder, message in ((output, "finished adapter"), (interrupted, "resume it")):
        with pytest.raises(TrainingError, match=message):
            kit.settings().train(kit.job(kit.loaded(), Lora(r=4), kit.dataset(), kit.Run(), folder))


def test_weights_that_are_not_finite_are_never_kept(kit, tmp_path):
    """A last step that ruins the weights is noticed although no later loss tells."""
    import torch

    loaded = kit.loaded()

    def ruin(step):
        if step == 6:
            with torch.no_grad():
                next(value for value in loaded.model.parameters() if value.requires_grad).fill_(math.inf)

    with pytest.raises(TrainingError, match=r"not finite, such as .*no adapter was kept"):
        kit.settings(eval_steps=100).train(kit.job(loaded, Lora(r=4), kit.dataset(), kit.Run(ruin), tmp_path))
    assert not (tmp_path / "adapter").exists()


def test_rows_that_do_not_fit_stop_the_run_before_it_writes(kit, tmp_path):
    """Prompts that fill max_length are refused before any work."""
    with pytest.raises(TrainingError, match="rows have more tokens than"):
        kit.settings(max_length=8).train(kit.job(kit.loaded(), Lora(r=4), kit.dataset(), kit.Run(), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("part", "lora", "message"),
    [
        (Sft(max_length=512), Lora(r=4), "128 positions"),
        (Sft(max_length=64), Lora(r=64), "lora.r=64"),
        (Sft(max_length=64, packing=True), Lora(r=4), "flash_attention_2"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_before_it_writes(kit, tmp_path, part, lora, message):
    """Lengths, ranks and packing that the model cannot take are configuration errors."""
    with pytest.raises(ConfigError, match=message):
        part.train(kit.job(kit.loaded(), lora, kit.dataset(), kit.Run(), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_an_initialisation_that_moves_the_base_leaves_a_plain_adapter(kit, tmp_path, init):
    """PiSSA's and OLoRA's adapters are saved so that they fit the base and leave it as it was when switched off."""
    import torch
    from peft import PeftModel

    loaded = kit.loaded()
    model, training = kit.settings(epochs=1).train(
        kit.job(loaded, Lora(r=4, init=init), kit.dataset(), kit.Run(), tmp_path)
    )
    plain = PeftModel.from_pretrained(kit.llama(), training.adapter).eval()
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.allclose(plain(ids).logits, model(ids).logits, atol=1e-5)
        with plain.disable_adapter():
            assert torch.equal(plain(ids).logits, kit.llama().eval()(ids).logits)


def test_bf16_and_checkpointing_train_as_well(kit, tmp_path):
    """Autocast and recomputation change the loss by rounding alone, in any order of runs in one process."""
    losses = []
    for index, changes in enumerate(({"bf16": True}, {"gradient_checkpointing": True}, {})):
        run = kit.Run()
        kit.settings(epochs=1, **changes).train(
            kit.job(kit.loaded(), Lora(r=4), kit.dataset(), run, tmp_path / str(index))
        )
        losses.append(run.values("train/loss"))
    assert losses[1] == pytest.approx(losses[2], abs=1e-5)
    assert losses[0] == pytest.approx(losses[2], abs=3e-2)
    assert losses[0] != losses[2]


def test_max_steps_stops_and_is_estimated(kit, tmp_path):
    """max_steps ends training early, without validation rows too, and the estimate knows it."""
    part = kit.settings(max_steps=2)
    data = kit.dataset(validation=0)
    _, training = part.train(kit.job(kit.loaded(), Lora(r=4), data, kit.Run(), tmp_path))
    assert training.steps == 2 == part.estimate(kit.loaded(), Lora(r=4), data).steps


def test_max_steps_never_lengthens_a_run(kit, finished, tmp_path):
    """A max_steps beyond the epochs changes neither the number of steps nor a single weight."""
    _, whole, _, output = finished
    _, training = kit.settings(max_steps=100).train(
        kit.job(kit.loaded(), Lora(r=4), kit.dataset(), kit.Run(), tmp_path)
    )
    assert training.steps == whole.steps
    assert same(kit.weights(tmp_path), kit.weights(output))


def test_a_watch_sees_every_validation_loss_and_may_end_the_run(kit, tmp_path):
    """The watch is told the logged validation losses with their steps; what it raises leaves no adapter."""
    seen, run = [], kit.Run()

    def on_evaluation(step, loss):
        seen.append((step, loss))
        if len(seen) == 2:
            raise PrunedError("worse than the others")

    with pytest.raises(PrunedError, match="worse"):
        kit.settings(eval_steps=2).train(
            kit.job(kit.loaded(), Lora(r=4), kit.dataset(), run, tmp_path, on_evaluation=on_evaluation)
        )
    assert [step for step, _ in seen] == [2, 4]
    assert [loss for _, loss in seen] == run.values("eval/loss")
    assert not (tmp_path / "adapter").exists()
