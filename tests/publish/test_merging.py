"""An adapter merged into its base: what that changes is measured."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from loraloop.model import nf4
from loraloop.model.causal import CausalLM
from loraloop.publish import card, export, merging


@pytest.fixture
def weak(version, tmp_path):
    """The folder of an adapter of the bundled base whose updates are about a millionth of the weights."""
    import torch
    from peft import LoraConfig, get_peft_model

    model = CausalLM(name="bundled:tiny").load().model
    adapted = get_peft_model(model, LoraConfig(r=4, target_modules=["o_proj"], layers_to_transform=[0]))
    for name, value in adapted.named_parameters():
        if "lora_B" in name:
            value.data = torch.full_like(value, 1e-7)
    adapted.save_pretrained(tmp_path / "weak")
    return tmp_path / "weak"


def test_a_merge_that_changes_almost_nothing_is_called_that(version, weak, caplog):
    """Into the values of NF4, bfloat16 loses a small update: the share that changed, a warning and the card say so.

    Weights that NF4 makes 0 are left out: beside them no update is too small.
    """
    import torch

    def merged(dtype):
        loaded = CausalLM(name="bundled:tiny", quantization="nf4").load()
        nf4.dequantize(loaded.model)
        before = loaded.model.get_submodule("model.layers.0.self_attn.o_proj").weight.detach().clone()
        model, changed = merging.merge(loaded, weak, dtype)
        after = model.get_submodule("model.layers.0.self_attn.o_proj").weight
        differ = (after != before.to(after.dtype))[before != 0].float().mean()
        assert changed == pytest.approx(float(differ))
        assert after.dtype == getattr(torch, dtype)
        return changed

    with caplog.at_level(logging.WARNING, "loraloop"):
        assert merged("float32") > 0.5
        assert "almost the base" not in caplog.text
        lost = merged("bfloat16")
    assert lost < card.NOTHING
    assert "of the adapted weights in bfloat16: it is almost the base; take publish.dtype=float32" in caplog.text
    made = export.of(version, "merged", "bfloat16", "dequantised")
    text = card.of_export(version, replace(made, changed=lost), None, None, "", None)
    assert "into its dequantised weights" in text
    assert "That is almost nothing: the export is nearly the base." in text
