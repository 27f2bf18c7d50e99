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


@pytest.fixture
def base(bundled):
    """A copy of the bundled base with a bias."""
    import torch

    model = copy.deepcopy(bundled.model)
    layer = model.model.layers[0].self_attn.q_proj
    layer.bias = torch.nn.Parameter(torch.zeros(layer.out_features))
    return model


def test_the_base_is_as_it_was_after_an_adapter(base, folders, ids, tmp_path):
    """Within the context the adapter answers as on its own; afterwards each bit is as before, trained biases too."""
    import torch
    from peft import LoraConfig, get_peft_model

    trained = get_peft_model(copy.deepcopy(base), LoraConfig(target_modules=TARGETS, bias="all"))
    trained.base_model.model.model.layers[0].self_attn.q_proj.base_layer.bias.data.fill_(3)
    trained.save_pretrained(tmp_path / "biased")
    before, state = logits(base, ids), torch.random.get_rng_state()
    for folder in (folders / "one", tmp_path / "biased"):
        alone = logits(adapters.attach(copy.deepcopy(base), folder), ids)
        torch.random.set_rng_state(state)
        with adapters.attached(base, folder) as model:
            assert torch.equal(logits(model, ids), alone)
        assert torch.equal(logits(base, ids), before)
        assert torch.equal(torch.random.get_rng_state(), state)
    assert not hasattr(base, "peft_config")


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), ValueError("other"), KeyboardInterrupt()])
def test_an_error_within_the_context_is_passed_on(base, folders, error):
    """What fails while the adapter answers is not blamed on it, and the base carries nothing."""
    with pytest.raises(type(error)) as raised, adapters.attached(base, folders / "two"):
        raise error
    assert raised.value is error
    assert not hasattr(base, "peft_config")


@pytest.mark.parametrize("share", [None, 0, 0.5])
def test_an_adapter_that_cannot_be_loaded_leaves_nothing(base, folders, ids, tmp_path, share):
    """An adapter of another base, or whose file ends early, is a ModelError, and the base answers as before."""
    import shutil

    import torch

    before, folder = logits(base, ids), tmp_path / "bad"
    shutil.copytree(folders / ("narrow" if share is None else "two"), folder)
    file = folder / "adapter_model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content if share is None else content[: int(len(content) * share)])
    with pytest.raises(ModelError, match="does not fit the base"), adapters.attached(base, folder):
        pytest.fail("entered the context")
    assert torch.equal(logits(base, ids), before)
    assert not hasattr(base, "peft_config")


def test_a_probe_tells_what_an_adapter_makes_of_a_fixed_prompt(one, bundled):
    """A probe holds the likeliest next tokens after a fixed prompt with their logits; the mode is as it was."""
    import torch

    one.train()
    probe = adapters.probe(one, bundled.tokenizer)
    assert one.training
    after = logits(one.eval(), torch.tensor([bundled.tokenizer(probe.prompt)["input_ids"]]))[0, -1]
    assert list(probe.tokens) == after.topk(20).indices.tolist()
    assert list(probe.logits) == pytest.approx(after[list(probe.tokens)].tolist(), abs=1e-5)
