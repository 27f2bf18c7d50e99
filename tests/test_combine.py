"""Combinations of adapters of one base."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from loraloop.combine import Combination
from loraloop.errors import ConfigError
from loraloop.model.causal import BUNDLED


@pytest.fixture(scope="module")
def base():
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(BUNDLED / "tiny", dtype="float32").eval()


@pytest.fixture(scope="module")
def folders(base, tmp_path_factory):
    """Two adapters of one rank, the first rank-stabilised, on layers of which one is common."""
    import torch
    from peft import LoraConfig, get_peft_model

    root = tmp_path_factory.mktemp("parts")
    for seed, targets in enumerate((["q_proj", "v_proj"], ["q_proj", "k_proj"])):
        torch.manual_seed(seed)
        config = LoraConfig(r=4, lora_alpha=8, target_modules=targets, use_rslora=not seed, init_lora_weights=False)
        model = get_peft_model(base, config)
        model.save_pretrained(root / str(seed))
        model.unload()
    return [root / "0", root / "1"]


@pytest.fixture
def combined(base, folders, tmp_path):
    """A function that combines the two, and gives the folder."""
    from loraloop.model import adapters

    def combine(name, **settings):
        try:
            Combination(**settings).combine(base, folders, tmp_path / name)
        finally:
            adapters.detach(base)
        return tmp_path / name

    return combine


def logits(base, folder):
    import torch

    from loraloop.model import adapters

    with adapters.attached(base, folder) as tuned, torch.no_grad():
        return tuned(input_ids=torch.arange(30)[None]).logits


def test_the_whole_weight_on_one_part_is_that_part(base, folders, combined):
    """With the weights 1 and 0 the combination answers as its first part, whose scaling is rank-stabilised."""
    import torch

    folder = combined("one", weights=(1.0, 0.0))
    assert {path.name for path in folder.iterdir()} >= {"adapter_config.json", "adapter_model.safetensors"}
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["use_rslora"]) == (4, 4, False)
    assert sorted(config["target_modules"]) == ["k_proj", "q_proj", "v_proj"]
    assert torch.allclose(logits(base, folder), logits(base, folders[0]), atol=1e-4)


def test_what_dare_drops_follows_from_the_seed(combined):
    """Equal seeds give equal files, another seed other ones, and the state of torch's generator stays."""
    import torch

    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    made = [combined(f"dare{place}", kind="dare_ties", density=0.5, seed=seed) for place, seed in enumerate((1, 1, 2))]
    assert torch.equal(before, torch.random.get_rng_state())
    first, again, other = ((folder / "adapter_model.safetensors").read_bytes() for folder in made)
    assert first == again != other


def test_weights_and_density_are_checked():
    """One weight for each adapter is asked for, and a density where values are dropped, and only there."""
    assert Combination().of(2) == (0.5, 0.5)
    with pytest.raises(ConfigError, match="are 1 weights for 2 adapters"):
        Combination(weights=(1.0,)).of(2)
    with pytest.raises(ValidationError, match="needs a share"):
        Combination(kind="ties")
    with pytest.raises(ValidationError, match="leave density null"):
        Combination(density=0.5)
