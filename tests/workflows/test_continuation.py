"""What training may go on with, and what is said of the rest."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from loraloop.errors import ConfigError, RegistryError
from loraloop.lora import Lora
from loraloop.records import Base, Manifest, Version
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.workflows import continuation

BASE = Base(
    name="test", revision=None, sha256="1" * 64, tokenizer_sha256="2" * 64, chat_template_sha256=None,
    quantization="none", dtype="float32",
)  # fmt: skip


def llama(layers: int = 1) -> LlamaForCausalLM:
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": layers, "num_attention_heads": 2}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, num_key_value_heads=2, **sizes))


@pytest.fixture
def saved(tmp_path):
    """Saves an adapter of a shape, and gives a registry that finds it and the base's shape."""

    def save(lora: Lora, number: int = 3):
        get_peft_model(llama(), lora.peft_config()).save_pretrained(str(tmp_path))
        manifest = Manifest(
            base=BASE, rank=lora.r, alpha=lora.effective_alpha, targets=("q_proj",), dataset_fingerprint="d",
            template="t", run_id=None, parent_run_id=None, weights_sha256="3" * 64, loraloop_version="0",
        )  # fmt: skip
        version = Version(name="vaults", number=number, aliases=(), path=tmp_path, manifest=manifest)
        return SimpleNamespace(resolve=lambda asked: version), SimpleNamespace(model=llama(), base=BASE)

    return save


@pytest.mark.parametrize(
    "lora", [Lora(r=4), Lora(r=4, alpha=6), Lora(r=4, targets="all-linear"), Lora(r=2, rank_pattern={"v_proj": 4})]
)
def test_the_shape_that_it_was_trained_with_goes_on(saved, lora):
    """An adapter goes on under the settings that made it, whatever they were."""
    registry, skeleton = saved(lora)
    assert continuation.start(registry, "@champion", skeleton, lora).number == 3


@pytest.mark.parametrize(
    ("lora", "overrides"),
    [
        (Lora(r=8), "lora.r=4;"),
        (Lora(r=8, alpha=16), "lora.r=4 lora.alpha=8;"),
        (Lora(r=4, use_rslora=True), "lora.use_rslora=False;"),
        (Lora(r=4, targets=["q_proj"]), r"lora.targets=\[k_proj,o_proj,q_proj,v_proj\];"),
        (Lora(r=4, init="pissa"), "lora.init=default;"),
    ],
)
def test_another_shape_is_refused_with_the_overrides_that_fit(saved, lora, overrides):
    """The error holds exactly the overrides to write, and names the other two ways to begin."""
    registry, skeleton = saved(Lora(r=4))
    with pytest.raises(ConfigError, match=rf"write {overrides} .*resume=FOLDER.*leave continue_from out"):
        continuation.start(registry, "@champion", skeleton, lora)


@pytest.mark.parametrize(
    ("expression", "fits", "otherwise"),
    [
        (r".*self_attn\.[qv]_proj", ["q_proj", "v_proj"], r"\[q_proj,v_proj\]"),
        (r"model\.layers\.0\..*q_proj", ["layers.0.self_attn.q_proj"], r"\[model\.layers\.0\.self_attn\.q_proj\]"),
    ],
)
def test_targets_are_compared_by_the_layers_that_they_mean(saved, tmp_path, expression, fits, otherwise):
    """An adapter whose targets are a regular expression goes on under names of the same layers, and under no others."""
    registry, skeleton = saved(Lora(r=4))
    skeleton.model = llama(layers=2)
    config = LoraConfig.from_pretrained(str(tmp_path))
    config.target_modules = expression
    config.save_pretrained(str(tmp_path))
    assert continuation.start(registry, "@champion", skeleton, Lora(r=4, targets=fits)).number == 3
    with pytest.raises(ConfigError, match=rf"write lora\.targets={otherwise};"):
        continuation.start(registry, "@champion", skeleton, Lora(r=4, targets=["k_proj"]))


def test_an_adapter_with_whole_layers_is_refused(saved, tmp_path):
    """What PEFT's modules_to_save trained beside the updates would be left behind, so it is named and refused."""
    registry, skeleton = saved(Lora(r=4))
    config = LoraConfig.from_pretrained(str(tmp_path))
    config.modules_to_save = ["lm_head"]
    config.save_pretrained(str(tmp_path))
    with pytest.raises(ConfigError, match=r"whole layers \(lm_head\)"):
        continuation.start(registry, "@champion", skeleton, Lora(r=4))


@pytest.mark.parametrize(
    ("trained", "now", "write"),
    [
        ("none", "nf4-double", "model.quantization=none model.double_quantization=false;"),
        ("nf4-double", "none", "model.quantization=nf4 model.double_quantization=true;"),
        ("nf4-double", "nf4", "model.quantization=nf4 model.double_quantization=true;"),
    ],
)
def test_another_quantisation_is_refused(saved, trained, now, write):
    """An adapter goes on with the quantisation that it was trained on; the error says which, and the other two ways."""
    registry, skeleton = saved(Lora(r=4))
    version = registry.resolve("")
    was, skeleton.base = (replace(BASE, quantization=kind) for kind in (trained, now))
    registry.resolve = lambda asked: replace(version, manifest=replace(version.manifest, base=was))
    with pytest.raises(ConfigError, match=rf"{write} .*resume=FOLDER.*leave continue_from out"):
        continuation.start(registry, "@champion", skeleton, Lora(r=4))


def test_a_version_that_is_not_there_is_refused_with_the_other_ways_to_begin(tmp_path, saved):
    """What names no version is refused by its key, with the way to resume and the way to a new adapter."""
    _, skeleton = saved(Lora(r=4))
    with pytest.raises(RegistryError, match=r"^continue_from=NOPE: .*resume=FOLDER.*leave continue_from out"):
        continuation.start(MlflowRegistry(folder=tmp_path), "NOPE", skeleton, Lora(r=4))


def test_another_base_is_refused(saved):
    """An adapter of other weights is refused, by a message that names both bases."""
    registry, skeleton = saved(Lora(r=4))
    version = continuation.start(registry, "@champion", skeleton, Lora(r=4))
    other = SimpleNamespace(base=Base(**{**vars_of(BASE), "name": "other", "sha256": "9" * 64}))
    with pytest.raises(ConfigError, match=r"continue_from=@champion: .*trained on another base: test.*other"):
        continuation.require_base("@champion", version, other)


def vars_of(base: Base) -> dict:
    return {name: getattr(base, name) for name in base.__slots__}


def test_the_lineage_names_the_version_or_the_weights(saved):
    """A registered version is named by name and number, a folder by its weights."""
    registry, _ = saved(Lora(r=4))
    assert continuation.name(registry.resolve("")) == "models:/vaults/3"
    registry, _ = saved(Lora(r=4), number=0)
    assert continuation.name(registry.resolve("")) == f"weights {'3' * 64}"
