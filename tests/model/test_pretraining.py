"""The recipe of the bundled model."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from loraloop.errors import ConfigError
from loraloop.model import tokenizer
from loraloop.model.causal import BUNDLED, CausalLM
from loraloop.model.pretraining import LOG, Pretraining
from loraloop.records import Job
from loraloop.stages.pretrain import pretrain

ROOT = Path(__file__).parents[2]
STEPS = 3


@pytest.fixture(autouse=True)
def _threads():
    """The recipe sets PyTorch's threads; later tests get theirs back."""
    import torch

    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def recipe():
    """``conf/pretraining/tiny.yaml`` as a part."""
    values = yaml.safe_load((ROOT / "conf" / "pretraining" / "tiny.yaml").read_text())
    assert values.pop("_target_") == "loraloop.model.pretraining.Pretraining"
    return Pretraining(**values)


@pytest.fixture
def small(tmp_path):
    """The recipe at a size that trains in a moment."""
    return Pretraining(output=tmp_path / "small", steps=6, batch_size=4, hidden_size=32, layers=1, heads=2)


def job(output):
    return Job(stage="pretrain", seed=0, config={}, output=output, choices={})


def test_the_recipe_makes_the_shipped_model(recipe):
    """The first losses of the recipe are those in the shipped log, so the weights come from this recipe.

    Another processor rounds bfloat16 products otherwise: float32 gives the same losses to within the tolerance, and
    so must any bfloat16. Another seed, and other tasks with it, is ten times further away.
    """
    log = json.loads((BUNDLED / "tiny" / LOG).read_text())
    shipped = log["first_losses"][:STEPS]
    assert recipe.losses(STEPS) == pytest.approx(shipped, abs=2e-3)
    assert replace(recipe, bf16=False).losses(STEPS) == pytest.approx(shipped, abs=2e-3)
    assert replace(recipe, seed=1).losses(1) != pytest.approx(shipped[:1], abs=2e-2)
    assert (log["steps"], log["counting_steps"]) == (recipe.steps, recipe.counting_steps)


def test_the_recipe_has_the_shipped_models_shape(recipe, bundled):
    """The shipped model has the recipe's width, depth and heads."""
    config = bundled.model.config
    shape = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads)
    assert shape == (recipe.hidden_size, recipe.layers, recipe.heads)


def test_the_recipe_is_deterministic(small):
    """Two runs of the same recipe have the same losses to the last bit, whatever was drawn before."""
    import torch

    first = small.losses(4)
    torch.manual_seed(99)
    assert small.losses(4) == first
    assert small.losses(2) == first[:2]
    assert replace(small, seed=1).losses(4) != first


def test_a_run_writes_a_model_that_loads(small):
    """The stage writes weights, tokenizer and log; the folder is a base model like any other."""
    pretrain(job(small.output), small)
    loaded = CausalLM(name=str(small.output)).load()
    assert loaded.model.config.hidden_size == 32
    assert loaded.tokenizer("A")["input_ids"] == [256, 65]
    log = json.loads((small.output / LOG).read_text())
    assert log["first_losses"] == [round(loss, 6) for loss in small.losses(6)]
    assert log["steps"] == 6


def test_the_second_round_goes_on_where_the_first_ended(small, tmp_path):
    """Both rounds in one run, or the second from the first one's folder, write the same files."""
    both = replace(small, output=tmp_path / "both", counting_steps=3, counting_batch_size=4)
    second = replace(both, output=tmp_path / "second", start=small.output)
    small.run(lambda step, loss: None)
    seen = {}
    for each in (both, second):
        seen[each] = []
        each.run(lambda step, loss, each=each: seen[each].append(step))
    assert (seen[both], seen[second]) == ([1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3])
    for name in ("model.safetensors", LOG):
        assert (both.output / name).read_bytes() == (second.output / name).read_bytes()
    log = json.loads((both.output / LOG).read_text())
    assert (log["steps"], log["counting_steps"], len(log["counting_losses"])) == (6, 3, 3)
    assert log["first_losses"] == json.loads((small.output / LOG).read_text())["first_losses"]


def test_two_runs_write_the_same_weights(small, tmp_path):
    """The same recipe gives the same file, byte for byte."""
    again = replace(small, output=tmp_path / "again")
    for each in (small, again):
        each.run(lambda step, loss: None)
    assert (small.output / "model.safetensors").read_bytes() == (again.output / "model.safetensors").read_bytes()


def test_every_step_is_reported(small):
    """Progress is called once a step, with the step's number and loss."""
    seen = []
    small.run(lambda step, loss: seen.append((step, loss)))
    assert [step for step, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in seen] == small.losses(6)


def test_an_interrupted_run_leaves_nothing(small):
    """Ctrl+C in the middle leaves no folder that looks like a model."""

    def interrupt(step, loss):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small.run(interrupt)
    assert list(small.output.parent.iterdir()) == []


def test_a_disk_that_fills_up_leaves_nothing(small, monkeypatch):
    """An error after the weights were written leaves no folder with half a model."""

    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tokenizer, "byte_tokenizer", full)
    with pytest.raises(OSError, match="No space left"):
        small.run(lambda step, loss: None)
    assert list(small.output.parent.iterdir()) == []


def test_an_existing_output_is_refused_before_any_work(small):
    """The stage refuses a folder that exists and leaves what is in it."""
    small.output.mkdir()
    (small.output / "precious").write_text("mine")
    with pytest.raises(ConfigError, match=r"pretraining\.output=.*small exists already: name a new folder"):
        pretrain(job(small.output), small)
    assert [path.name for path in small.output.iterdir()] == ["precious"]


def test_heads_divide_the_width(tmp_path):
    """A width that the heads do not divide is refused when the part is built."""
    with pytest.raises(ValidationError, match="hidden_size=128 must be a multiple of heads=3"):
        Pretraining(output=tmp_path / "x", steps=1, heads=3)
