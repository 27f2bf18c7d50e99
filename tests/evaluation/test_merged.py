"""Merged and unmerged adapters agree, and the check finds those that do not."""

from __future__ import annotations

import pytest

from loraloop.errors import ModelError
from loraloop.evaluation.evaluation import Evaluation
from loraloop.evaluation.infer import inference
from loraloop.evaluation.merged import _merging, agreement

IDS = [[256, 97, 98, 99, 10, 62, 32], [256, 100, 101]]


def logits(model):
    import torch

    with torch.no_grad():
        return [model(input_ids=torch.tensor([ids])).logits for ids in IDS]


@pytest.mark.parametrize(
    "kind",
    [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["embed_tokens", "q_proj", "lm_head"]}],
    ids=["plain", "rslora", "dora", "embeddings"],
)
def test_merged_layers_compute_what_peft_exports(llama, adapt, kind):
    """The layer-wise merge gives the logits of PEFT's merge_and_unload, and both agree with the unmerged adapter."""
    import torch

    adapted = adapt(llama(), **kind).eval()
    found = agreement(adapted, IDS)
    assert 0 < found.difference < found.tolerance
    with _merging(adapted):
        ours = logits(adapted)
    exported = logits(adapted.merge_and_unload())
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, exported, strict=True))


@pytest.mark.parametrize("compute", ["float32", "bfloat16"])
def test_an_adapter_on_nf4_agrees_with_the_dequantised_merge(quantised, adapt, compute):
    """On a 4-bit base the adapter merged into the dequantised weights answers like the adapter beside them."""
    adapted = adapt(quantised(compute)).eval()
    found = agreement(adapted, IDS)
    assert found.difference < found.tolerance


@pytest.mark.parametrize("base", ["float32", "nf4"])
def test_the_model_is_bit_for_bit_as_before(llama, quantised, adapt, base):
    """After the check every tensor and every answer is what it was, and training still works."""
    import torch

    model = llama() if base == "float32" else quantised("float32")
    adapted = adapt(model, use_dora=base == "float32")
    before = {k: v.clone() for k, v in adapted.state_dict().items()}
    with inference(adapted):
        answers = logits(adapted)
    agreement(adapted, IDS)
    assert adapted.state_dict().keys() == before.keys()
    assert all(torch.equal(before[name], value) for name, value in adapted.state_dict().items())
    with inference(adapted):
        assert all(torch.equal(a, b) for a, b in zip(answers, logits(adapted), strict=True))
    ids = torch.tensor(IDS[:1])
    adapted(input_ids=ids, labels=ids).loss.backward()


def test_a_disagreement_names_both_numbers(llama, adapt, monkeypatch):
    """A merge that adds the wrong delta is an error with the difference and what rounding explains."""
    from peft.tuners.lora.layer import Linear

    right = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: 1.1 * right(self, name))
    with pytest.raises(ModelError, match=r"logits differ by up to [\d.e-]+, rounding explains [\d.e-]+"):
        agreement(adapt(llama()), IDS)


@pytest.mark.parametrize("value", [float("nan"), 1e37])
def test_logits_that_are_not_finite_are_an_error(llama, adapt, value):
    """An adapter with NaN in it, or so large that logits overflow, cannot pass as agreeing with itself."""
    adapted = adapt(llama())
    next(p for name, p in adapted.named_parameters() if "lora_B" in name).data[:] = value
    before = adapted.base_model.model.model.layers[0].self_attn.q_proj.base_layer
    with pytest.raises(ModelError):
        agreement(adapted, IDS)
    assert adapted.base_model.model.model.layers[0].self_attn.q_proj.base_layer is before


def test_the_part_checks_the_first_rows(llama, adapt, tokenizer, rows):
    """Evaluation.agree encodes rows as they are trained on and reports how many it compared."""
    assert Evaluation().agree(adapt(llama()), tokenizer, rows, count=3).rows == 3
