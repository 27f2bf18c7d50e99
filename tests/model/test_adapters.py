"""Adapters on a base in memory."""

from __future__ import annotations

import copy

import pytest

from loraloop.errors import ModelError
from loraloop.model import adapters
from loraloop.model.causal import CausalLM

TARGETS = ["q_proj", "v_proj"]


@pytest.fixture(scope="module")
def folders(bundled, tmp_path_factory):
    """Three adapters in PEFT's layout: two for the bundled base, one for a base of another width."""
    import torch
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("adapters")
    narrow = {"model_type": "llama", "vocab_size": 259, "hidden_size": 64, "intermediate_size": 64}
    narrow |= {"num_hidden_layers": 4, "num_attention_heads": 4}
    other = CausalLM(name="nobody/nothing", weights="random", architecture=narrow).load().model
    torch.manual_seed(0)
    for name, base, rank in (("one", bundled.model, 4), ("two", bundled.model, 8), ("narrow", other, 4)):
        config = LoraConfig(r=rank, target_modules=TARGETS, init_lora_weights=False)
        get_peft_model(copy.deepcopy(base), config).save_pretrained(root / name)
    return root


@pytest.fixture
def one(bundled, folders):
    """The bundled base with the first adapter."""
    return adapters.attach(copy.deepcopy(bundled.model), folders / "one")


def logits(model, ids):
    import torch

    with torch.no_grad():
        return model(ids).logits


def test_an_attached_adapter_answers(one, bundled, ids):
    """The base with an adapter, in evaluation mode, answers otherwise than the base."""
    import torch

    assert not one.training
    assert not torch.equal(logits(one, ids), logits(bundled.model, ids))


def test_another_adapter_stands_in_and_goes(one, bundled, folders, ids):
    """Within the context the other adapter answers exactly as on its own; afterwards the first one, alone."""
    import torch

    before = logits(one, ids)
    alone = logits(adapters.attach(copy.deepcopy(bundled.model), folders / "two"), ids)
    with adapters.instead(one, folders / "two") as model:
        assert torch.equal(logits(model, ids), alone)
    assert torch.equal(logits(one, ids), before)
    assert list(one.peft_config) == ["default"]
    assert one.active_adapter == "default"


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("other"), KeyboardInterrupt()])
def test_an_error_within_the_context_is_passed_on_and_the_adapter_restored(one, folders, ids, error):
    """What fails while the other adapter answers is not blamed on it, and the first adapter is back."""
    import torch

    before = logits(one, ids)
    with pytest.raises(type(error)) as raised, adapters.instead(one, folders / "two"):
        raise error
    assert raised.value is error
    assert torch.equal(logits(one, ids), before)
    assert list(one.peft_config) == ["default"]


def test_an_adapter_of_another_base_is_refused_and_leaves_nothing(one, bundled, folders, ids):
    """An adapter whose shapes do not fit is a ModelError, and the model answers as before."""
    import torch

    before = logits(one, ids)
    with pytest.raises(ModelError, match="does not fit the base"), adapters.instead(one, folders / "narrow"):
        pytest.fail("entered the context")
    assert torch.equal(logits(one, ids), before)
    assert list(one.peft_config) == ["default"]
    with pytest.raises(ModelError, match="does not fit the base"):
        adapters.attach(copy.deepcopy(bundled.model), folders / "narrow")


@pytest.mark.parametrize("share", [0, 0.5])
def test_a_truncated_adapter_is_refused_and_leaves_nothing(one, folders, ids, tmp_path, share):
    """An adapter file that ends early is a ModelError, and the model answers as before."""
    import shutil

    import torch

    before = logits(one, ids)
    folder = tmp_path / "cut"
    shutil.copytree(folders / "two", folder)
    file = folder / "adapter_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="cut"), adapters.instead(one, folder):
        pytest.fail("entered the context")
    assert torch.equal(logits(one, ids), before)
    assert list(one.peft_config) == ["default"]


def test_a_probe_tells_what_an_adapter_makes_of_a_fixed_prompt(one, bundled):
    """A probe holds the likeliest next tokens after a fixed prompt with their logits; the mode is as it was."""
    import torch

    one.train()
    probe = adapters.probe(one, bundled.tokenizer)
    assert one.training
    after = logits(one.eval(), torch.tensor([bundled.tokenizer(probe.prompt)["input_ids"]]))[0, -1]
    assert list(probe.tokens) == after.topk(8).indices.tolist()
    assert list(probe.logits) == pytest.approx(after[list(probe.tokens)].tolist(), abs=1e-5)
