"""Promise T5: an adapter answers the same merged into its base as beside it."""

from __future__ import annotations

import copy

import pytest

from loraloop.evaluation.infer import inference

IDS = [[256, 97, 98, 99, 10, 62, 32], [256, 100, 101]]


def logits(model):
    import torch

    with inference(model):  # which also keeps bitsandbytes from repacking the weights
        return [model(input_ids=torch.tensor([ids])).logits.float() for ids in IDS]


def require_agreement(apart, merged, share):
    """Assert that logits differ by at most a share of the largest."""
    largest = max(float(each.abs().max()) for each in apart)
    assert max(float((a - b).abs().max()) for a, b in zip(apart, merged, strict=True)) <= share * largest


@pytest.mark.parametrize(
    "kind",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["embed_tokens", "q_proj", "lm_head"]}],
    ids=["plain", "rslora", "dora", "embeddings"],
)
def test_a_merged_adapter_answers_like_the_unmerged_one(llama, adapt, kind):
    """What PEFT exports has the adapter's logits in float32, but for rounding; the base alone has others."""
    adapted = adapt(llama(), **kind).eval()
    with adapted.disable_adapter():
        base = logits(adapted)
    apart = logits(adapted)
    require_agreement(apart, logits(adapted.merge_and_unload()), 1e-4)
    with pytest.raises(AssertionError):
        require_agreement(apart, base, 1e-4)


@pytest.mark.parametrize(("compute", "share"), [("float32", 1e-4), ("bfloat16", 5e-2)])
def test_an_adapter_on_nf4_answers_like_the_merge_into_dequantised_weights(quantised, adapt, compute, share):
    """Merged into the dequantised weights of its 4-bit base, an adapter answers as it does beside them.

    PEFT's merge in place would quantise the sum once more, which is another model.
    """
    adapted = adapt(quantised(compute)).eval()
    apart = logits(adapted)
    merged = copy.deepcopy(adapted)
    _dequantise(merged)
    require_agreement(apart, logits(merged.merge_and_unload()), share)


def _dequantise(model):
    """Replace the 4-bit layers below the adapters by layers with the same weights in full."""
    import torch
    from peft.tuners.lora import bnb, layer
    from peft.utils.integrations import dequantize_module_weight

    for module in model.modules():
        if isinstance(module, bnb.Linear4bit):
            inner = module.get_base_layer()
            dense = torch.nn.Linear(inner.in_features, inner.out_features, bias=inner.bias is not None)
            dense.weight = torch.nn.Parameter(dequantize_module_weight(inner).detach(), requires_grad=False)
            dense.bias = inner.bias
            module.base_layer = dense
            module.__class__ = layer.Linear
