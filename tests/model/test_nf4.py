"""NF4 on the CPU."""

from __future__ import annotations

import pytest

from loraloop.model import nf4
from loraloop.model.causal import CausalLM

SMALL = {
    "model_type": "llama",
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 64,
}


@pytest.fixture(scope="session", params=["stored", "random"])
def quantised(request):
    """A double-quantised model: the bundled one, quantised while loading, and a random one, quantised in memory."""
    if request.param == "stored":
        return CausalLM(name="bundled:tiny", quantization="nf4", double_quantization=True)
    return CausalLM(
        name="nobody/nothing", weights="random", architecture=SMALL, quantization="nf4", double_quantization=True
    )


def linear(model):
    from torch import nn

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}


def test_every_linear_layer_but_the_head_is_nf4(quantised):
    """Linear layers hold 4-bit NF4 with quantised constants; the head stays as it was."""
    from bitsandbytes.nn.modules import Linear4bit

    loaded = quantised.load()
    layers = linear(loaded.model)
    assert not isinstance(layers.pop("lm_head"), Linear4bit)
    assert len(layers) == 7 * loaded.model.config.num_hidden_layers
    for layer in layers.values():
        assert isinstance(layer, Linear4bit)
        assert layer.weight.quant_state.quant_type == "nf4"
        assert layer.weight.quant_state.nested
        assert layer.weight.numel() * layer.weight.element_size() * 2 == layer.in_features * layer.out_features
    assert loaded.base.quantization == "nf4-double"


def test_double_quantisation_is_a_choice():
    """Without ``double_quantization`` the constants stay as they are, and the identity says so."""
    loaded = CausalLM(name="bundled:tiny", quantization="nf4").load()
    assert not loaded.model.model.layers[0].mlp.up_proj.weight.quant_state.nested
    assert loaded.base.quantization == "nf4"


def test_nf4_answers_like_the_original(bundled, ids):
    """Quantised, the bundled model's logits stay near the original's, closer than those of another text."""
    import torch

    small = CausalLM(name="bundled:tiny", quantization="nf4", double_quantization=True).load()
    with torch.no_grad():
        exact, near, other = bundled.model(ids).logits, small.model(ids).logits, bundled.model(ids.flip(1)).logits
    assert not torch.equal(exact, near)
    assert torch.nn.functional.mse_loss(near, exact) < torch.nn.functional.mse_loss(other, exact) / 10


def test_quantising_in_memory_is_quantising_while_loading():
    """:func:`nf4.quantize` on loaded weights gives the bytes that loading with ``quantization=nf4`` gives."""
    import torch

    stored = CausalLM(name="bundled:tiny", quantization="nf4").load().model
    model = CausalLM(name="bundled:tiny").load().model
    nf4.quantize(model, torch.float32, double=False)
    for name, layer in linear(stored).items():
        assert torch.equal(layer.weight.data, linear(model)[name].weight.data), name


def gradients(model, ids):
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_an_evaluation_leaves_the_gradients_right(quantised, ids):
    """LoRA's gradients through NF4 layers are the same before and after an evaluation without gradients."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(
        quantised.load().model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    )
    before = gradients(model, ids)
    assert before
    assert all("lora_" in name for name in before)
    with torch.no_grad():
        model.eval()(ids)
    after = gradients(model, ids)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_no_layer_keeps_the_layout_without_a_backward_pass():
    """:func:`nf4.keep_trainable` turns the repacking off in every layer, whatever this processor has."""
    model = CausalLM(name="bundled:tiny", quantization="nf4").load().model
    flagged = [layer for layer in model.modules() if hasattr(layer, "support_avx512bf16_for_cpu")]
    assert flagged
    for layer in flagged:
        layer.support_avx512bf16_for_cpu = True
    nf4.keep_trainable(model)
    assert not any(layer.support_avx512bf16_for_cpu for layer in flagged)


def test_a_dequantised_base_answers_as_the_quantised_one():
    """Its logits are those of the NF4 base to float32's rounding, and not those of the stored weights."""
    import torch

    quantised = CausalLM(name="bundled:tiny", quantization="nf4").load()
    assert (quantised.base.quantizer, quantised.base.block_size) == ("bitsandbytes", 64)
    ids = torch.tensor([quantised.tokenizer("Twelve vaults: HHTH\n> ")["input_ids"]])
    with torch.no_grad():
        wanted = quantised.model(input_ids=ids).logits
        nf4.dequantize(quantised.model)
        found = quantised.model.to(torch.float32)(input_ids=ids).logits
        stored = CausalLM(name="bundled:tiny").load().model(input_ids=ids).logits
    assert (found - wanted).abs().max() < 1e-3
    assert (stored - wanted).abs().max() > 0.05
