"""What every trainer promises, whatever its loss; the tests of one trainer alone are in its own file."""

from __future__ import annotations

import math
import shutil
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

COMMON = {"accumulation": 2, "learning_rate": 1e-2, "max_length": 64, "log_steps": 1}
TRAINERS = {
    "sft": Sft(**COMMON, epochs=2),
    "dpo": Dpo(**COMMON, epochs=2),
    "kto": Kto(**COMMON, epochs=2),
    "grpo": Grpo(**COMMON, epochs=1, batch_size=8, answers=4, max_new_tokens=4, beta=0.04),
}
"""Each makes so many steps of 16 rows; GRPO answers every learned turn, of which every fourth row has two."""
STEPS = {"sft": 4, "dpo": 4, "kto": 4, "grpo": 5}
AT_REFERENCE = {"dpo": ("loss", math.log(2)), "kto": ("loss", 0.5), "grpo": ("kl", 0.0)}
"""What a trainer logs at its first step if the adapter is its own reference."""


def dotted(example, answer):
    """The share of an answer's characters that are below 64."""
    return sum(ord(letter) < 64 for letter in answer) / (len(answer) or 1)


def base(kit):
    """A random base whose logits differ enough for an adapter to move what is drawn from them."""
    loaded = kit.loaded()
    loaded.model.get_input_embeddings().weight.data.mul_(10)
    return loaded


def data(kit, name):
    """Pairs; for KTO, answers that are labelled good and bad in turn."""
    made = kit.dataset(16, 4, rejected=True)
    if name != "kto":
        return made
    rows = (replace(row, example=replace(row.example, label=place % 2 == 0)) for place, row in enumerate(made.train))
    return replace(made, train=tuple(rows))


def train(kit, name, output, run=None, resume=None, lora=None):
    """Train with the trainer of that name; without dropout, so that it begins at its reference."""
    lora = lora or Lora(r=4, dropout=0.0)
    job = kit.job(base(kit), lora, data(kit, name), run or kit.Run(), output, resume=resume, reward=dotted)
    return TRAINERS[name].train(job)


@pytest.mark.parametrize("name", TRAINERS, scope="class")
class TestContract:
    """A few steps of each trainer: as a whole, and interrupted in the third."""

    @pytest.fixture(scope="class")
    def whole(self, kit, name, tmp_path_factory):
        """The model, the training, its run and its folder."""
        run, output = kit.Run(), tmp_path_factory.mktemp(name)
        return *train(kit, name, output, run), run, output

    @pytest.fixture(scope="class")
    def interrupted(self, kit, name, tmp_path_factory):
        """The folder of a run that Ctrl+C stopped. Only to be read."""
        output = tmp_path_factory.mktemp(f"{name}-interrupted")
        run = kit.Run(lambda step: signal.raise_signal(signal.SIGINT) if step == 2 else None)
        with pytest.raises(KeyboardInterrupt):
            train(kit, name, output, run)
        return output

    def test_the_estimate_names_the_steps(self, kit, name, whole):
        """Steps and trained parameters of the estimate, and tokens where no answers are drawn, are those trained."""
        _, training, *_ = whole
        expected = TRAINERS[name].estimate(base(kit), Lora(r=4, dropout=0.0), data(kit, name))
        assert expected.steps == training.steps == STEPS[name]
        assert expected.trainable_parameters == training.trainable_parameters
        assert expected.tokens == training.tokens or name == "grpo"

    def test_the_reference_stays_as_it_was(self, kit, whole):
        """With the adapter switched off, the base is what it was before the training to the last bit."""
        import torch

        model, *_ = whole
        ids = torch.arange(20)[None]
        with torch.no_grad():
            before, after = base(kit).model.eval()(ids).logits, model(ids).logits
            with model.disable_adapter():
                assert torch.equal(before, model(ids).logits)
        assert not torch.equal(before, after)

    def test_training_begins_at_the_reference(self, name, whole):
        """At the first step the untrained adapter is its own reference."""
        if name in AT_REFERENCE:
            key, expected = AT_REFERENCE[name]
            assert whole[2].values(f"train/{key}")[0] == pytest.approx(expected, abs=1e-4)

    def test_an_interrupted_run_leaves_nothing_to_register(self, interrupted):
        """Ctrl+C keeps the step in progress as a checkpoint, and no adapter, without which nothing is registered."""
        assert "checkpoint-3" in {path.name for path in (interrupted / "checkpoints").iterdir()}
        assert not (interrupted / "adapter").exists()
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_an_interrupted_run_resumes_to_the_same_bits(self, kit, name, whole, interrupted, tmp_path):
        """The resumed run ends with the adapter of an uninterrupted one, drawn answers included."""
        shutil.copytree(interrupted, tmp_path / "resumed")
        training = train(kit, name, tmp_path / "resumed", resume=tmp_path / "resumed")[1]
        assert (training.steps, training.tokens) == (STEPS[name], whole[1].tokens)
        assert 0 == whole[1].resumed_tokens < training.resumed_tokens < training.tokens
        speed = (training.tokens - training.resumed_tokens) / training.seconds
        assert training.tokens_per_second == pytest.approx(speed)
        one, other = kit.weights(whole[3]), kit.weights(tmp_path / "resumed")
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)

    def test_weights_that_become_nan_end_the_run(self, kit, name, tmp_path):
        """What a step made NaN ends the next one with what to change, and leaves no adapter."""
        import torch

        loaded = base(kit)

        def ruin(step):
            with torch.no_grad():
                next(value for value in loaded.model.parameters() if value.requires_grad).fill_(math.nan)

        run = kit.Run(ruin)
        job = kit.job(loaded, Lora(r=4, dropout=0.0), data(kit, name), run, tmp_path, reward=dotted)
        said = r"loss is nan at step 2: .*trainer\.learning_rate \(now 0\.01\)|not finite, .*trainer\.learning_rate"
        with pytest.raises(TrainingError, match=said):
            TRAINERS[name].train(job)
        assert len(run.values("train/loss")) == 1
        assert not (tmp_path / "adapter").exists()


@pytest.mark.parametrize(
    "allowed", [{"init": "gaussian"}, {"init": "orthogonal"}, {"use_dora": True}, {"use_rslora": True}], ids=str
)
@pytest.mark.parametrize("name", AT_REFERENCE)
def test_every_allowed_init_begins_at_the_reference(kit, tmp_path, name, allowed):
    """The first step finds adapter and reference equal with each adapter that leaves the base as it is."""
    run, part = kit.Run(), replace(TRAINERS[name], max_steps=1, learning_rate=1e-9)
    lora = Lora(r=4, dropout=0.0, **allowed)
    part.train(kit.job(base(kit), lora, data(kit, name), run, tmp_path, reward=dotted))
    key, expected = AT_REFERENCE[name]
    assert run.values(f"train/{key}")[0] == pytest.approx(expected, abs=1e-4)
