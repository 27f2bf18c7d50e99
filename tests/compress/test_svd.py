"""Truncation of a LoRA's layers."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.compress import svd
from loraloop.compress.adapter import Adapter
from loraloop.compress.forms import Svd

SIZES = st.integers(1, 12)


def factors(rank, inputs, outputs, seed):
    """Random factors whose last components are small, as float32."""
    import torch

    rng = np.random.default_rng(seed)
    fade = 0.5 ** np.arange(rank)
    down, up = fade[:, None] * rng.normal(size=(rank, inputs)), rng.normal(size=(outputs, rank))
    return torch.tensor(down, dtype=torch.float32), torch.tensor(up, dtype=torch.float32)


@given(rank=SIZES, inputs=SIZES, outputs=SIZES, kept=SIZES, seed=st.integers(0, 99))
def test_truncation_is_that_of_the_dense_product(rank, inputs, outputs, kept, seed):
    """The result is NumPy's truncated SVD of the dense product, and is off by the energy of what was cut."""
    down, up = factors(rank, inputs, outputs, seed)
    dense = up.double().numpy() @ down.double().numpy()
    u, s, vt = np.linalg.svd(dense, full_matrices=False)
    small_down, small_up = svd.truncated(down, up, svd.by_rank(kept))
    found = (small_up @ small_down).numpy()
    assert small_down.shape[0] == small_up.shape[1] == min(kept, rank, inputs, outputs)
    assert np.allclose(found, (u[:, :kept] * s[:kept]) @ vt[:kept], atol=1e-9)
    assert np.isclose(np.sum((dense - found) ** 2), np.sum(s[kept:] ** 2), atol=1e-9)


@given(rank=SIZES, share=st.floats(0.01, 1.0), seed=st.integers(0, 99))
def test_energy_keeps_the_fewest_components(rank, share, seed):
    """The kept components hold the share of the energy that was asked for, and one fewer would not."""
    down, up = factors(rank, 16, 16, seed)
    energy = np.linalg.svd((up @ down).double().numpy(), compute_uv=False)[:rank] ** 2
    kept = len(svd.truncated(down, up, svd.by_energy(share))[0])
    assert energy[:kept].sum() >= (share - 1e-6) * energy.sum()
    assert kept == 1 or energy[: kept - 1].sum() < (share + 1e-6) * energy.sum()


def test_a_layer_that_was_never_trained_keeps_one_component():
    """An update of zeros becomes one of zeros with one component."""
    import torch

    down, up = svd.truncated(torch.ones(4, 6), torch.zeros(6, 4), svd.by_energy(0.99))
    assert (tuple(down.shape), tuple(up.shape)) == ((1, 6), (6, 1))
    assert not (up @ down).any()


@cache
def tiny():
    from transformers import AutoModelForCausalLM

    from loraloop.model.causal import BUNDLED

    return AutoModelForCausalLM.from_pretrained(BUNDLED / "tiny", dtype="float32")


def logits(folder):
    import torch

    from loraloop.model import adapters

    with adapters.attached(tiny(), folder) as tuned, torch.no_grad():
        return tuned(input_ids=torch.arange(40)[None]).logits


FORMS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True, "lora_alpha": 3},
    "patterns": {"rank_pattern": {"k_proj": 2, "layers.1.self_attn.q_proj": 4}, "alpha_pattern": {"v_proj": 20}},
}


@pytest.fixture(params=FORMS)
def folder(request, tmp_path):
    """An adapter of rank 8 whose layers are of rank 6 at most, as PEFT writes it."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    targets = ["q_proj", "k_proj", "v_proj"]
    shape = {"r": 8, "lora_alpha": 16, "target_modules": targets, "init_lora_weights": False}
    model = get_peft_model(tiny(), LoraConfig(**shape | FORMS[request.param]))
    for name, value in model.named_parameters():
        if "lora_A" in name and len(value) == 8:
            value.data[6:] = value.data[:2]
    model.save_pretrained(tmp_path / "adapter")
    model.unload()
    return tmp_path / "adapter"


def test_a_smaller_adapter_answers_as_the_larger_one(folder, tmp_path):
    """Cut to the rank that its updates have, an adapter gives PEFT the same logits, whatever its scaling was."""
    import torch

    made = svd.smaller(Adapter.read(folder), svd.by_energy(1 - 1e-9))
    (tmp_path / "small").mkdir()
    made.write(tmp_path / "small")
    config = json.loads((tmp_path / "small" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (6, 6, False)
    assert config["rank_pattern"] == config["alpha_pattern"]
    assert torch.allclose(logits(folder), logits(tmp_path / "small"), atol=1e-4)


def test_more_than_two_matrices_a_layer_are_refused(folder):
    """A tensor that is neither of LoRA's matrices is named."""
    from loraloop.errors import ModelError

    read = Adapter.read(folder)
    name = "base_model.model.lm_head.weight"
    tensors = {**read.tensors, name: next(iter(read.tensors.values()))}
    with pytest.raises(ModelError, match=r"holds base_model\.model\.lm_head"):
        svd.smaller(read.changed(tensors, read.config), svd.by_rank(1))


def test_two_measures_are_refused():
    """A rank beside a share of the energy is refused, and each alone is taken."""
    for given_alone in ({"rank": 4}, {"energy": 0.9}, {}):
        Svd(**given_alone)
    with pytest.raises(ValueError, match=r"energy=0.9 and rank=4 are two measures: give one of them"):
        Svd(rank=4, energy=0.9)
