"""Adapters as other trainers write them: each is registered, or refused by name."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace

import pytest

from loraloop.errors import LoraloopError
from loraloop.model.causal import CausalLM

LAYER = "base_model.model.model.layers.0.self_attn.q_proj"
UNSLOTH = {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers.models.llama.modeling_llama"}


@pytest.fixture(scope="module")
def bundled():
    return CausalLM(name="bundled:tiny").load()


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    from loraloop.registry.mlflow import MlflowRegistry

    return MlflowRegistry(name="foreign", folder=tmp_path_factory.mktemp("registry"))


@pytest.fixture
def by_peft(bundled, tmp_path):
    """A function that lets PEFT write an adapter."""

    def write(embeddings=None, **shape):
        import copy

        import torch
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        base = copy.deepcopy(bundled.model)
        if embeddings:
            base.resize_token_embeddings(embeddings)
        usual = {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
        model = get_peft_model(base, LoraConfig(**usual | shape))
        model.save_pretrained(tmp_path / "theirs", save_embedding_layers=embeddings is not None)
        return tmp_path / "theirs"

    return write


def renamed(change):
    """A change of every tensor's name."""

    def apply(folder):
        from safetensors.torch import load_file, save_file

        path = folder / "adapter_model.safetensors"
        save_file({change(name): value for name, value in load_file(path).items()}, path)

    return apply


def added(name, make):
    """A tensor more."""

    def apply(folder):
        from safetensors.torch import load_file, save_file

        path = folder / "adapter_model.safetensors"
        save_file(load_file(path) | {name: make()}, path)

    return apply


def settings(**values):
    """Other settings in the configuration."""

    def apply(folder):
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return apply


def changed(change):
    """A change of every tensor."""

    def apply(folder):
        from safetensors.torch import load_file, save_file

        path = folder / "adapter_model.safetensors"
        save_file({name: change(value) for name, value in load_file(path).items()}, path)

    return apply


def retyped(kind):
    import torch

    return changed(lambda value: value.to(getattr(torch, kind)))


def scaled(factor):
    return changed(lambda value: value * factor)


def ones(*shape):
    import torch

    return lambda: torch.ones(*shape)


def embeddings_of_the_base():
    from transformers import AutoModelForCausalLM

    from loraloop.model.causal import BUNDLED

    return AutoModelForCausalLM.from_pretrained(
        BUNDLED / "tiny", dtype="float32"
    ).model.embed_tokens.weight.data.clone()


KEPT = {
    "PEFT, TRL": ({}, None),
    "torch.compile": ({}, renamed(lambda name: name.replace("base_model.model.", "base_model.model._orig_mod.", 1))),
    "torch.compile around PEFT": ({}, renamed(lambda name: f"_orig_mod.{name}")),
    "DDP": ({}, renamed(lambda name: f"module.{name}")),
    "the adapter's name": ({}, renamed(lambda name: name.replace(".weight", ".default.weight"))),
    "no prefix": ({}, renamed(lambda name: name.removeprefix("base_model.model."))),
    "neither prefix nor model": ({}, renamed(lambda name: name.removeprefix("base_model.model.model."))),
    "the base's embeddings": ({}, added("base_model.model.model.embed_tokens.weight", embeddings_of_the_base)),
    "Unsloth": ({}, settings(auto_mapping={**UNSLOTH, "unsloth_fixed": True}, task_type="CAUSAL_LM")),
    "Unsloth's pattern of targets": ({"target_modules": r".*self_attn\.(q_proj|v_proj)"}, None),
    "unset settings of a newer PEFT": ({}, settings(a_new_idea=None, another={}, peft_version="9.0")),
    "rank-stabilised": ({"use_rslora": True}, None),
    "rank and alpha patterns": ({"rank_pattern": {"v_proj": 4}, "alpha_pattern": {"v_proj": 3}}, None),
    "some layers": ({"layers_to_transform": [0, 2]}, None),
}


def registration(bundled, registry, output):
    from loraloop.tracker.none import NoTracker
    from loraloop.workflows.registration import FolderRegistration

    model = SimpleNamespace(load=lambda: bundled, name="bundled:tiny")
    return FolderRegistration(model=model, template="{input}", tracker=NoTracker(), registry=registry, output=output)


def logits(model, folder):
    import torch
    from peft import PeftModel

    from loraloop.model import adapters

    try:
        with torch.no_grad():
            return PeftModel.from_pretrained(model, str(folder)).eval()(input_ids=torch.arange(30)[None]).logits
    finally:
        adapters.detach(model)


@pytest.mark.parametrize("case", KEPT)
def test_it_is_registered_and_answers_as_it_did(bundled, registry, by_peft, tmp_path, case):
    """The version gives PEFT the logits of the folder that PEFT wrote, whatever the tensors are called."""
    import torch

    shape, change = KEPT[case]
    folder = by_peft(**shape)
    expected = logits(bundled.model, folder)
    if change:
        change(folder)
    version = registration(bundled, registry, tmp_path / "job").register(folder)
    assert version.manifest.probe is not None
    assert torch.allclose(logits(bundled.model, version.path), expected, atol=1e-5)


REFUSED = {
    "DoRA": ({"use_dora": True}, None, "sets use_dora"),
    "trained biases": ({"bias": "all"}, None, "sets bias"),
    "whole layers": ({"modules_to_save": ["lm_head"]}, None, "sets modules_to_save"),
    "added tokens": ({"embeddings": 270}, None, r"\.weight of shape \[270, 128\], .* tokens were added"),
    "trained embeddings": (
        {},
        added("base_model.model.model.embed_tokens.weight", lambda: embeddings_of_the_base() + 1),
        "embed_tokens.weight, a whole layer that was trained along",
    ),
    "layer replication": ({}, settings(layer_replication=[[0, 2], [1, 3]]), "sets layer_replication"),
    "DoRA's tensors alone": ({}, added(f"{LAYER}.lora_magnitude_vector", ones(128)), "none of LoRA's two matrices"),
    "code of a base": ({}, settings(auto_mapping={"parent_library": "transformers_modules.x"}), "never executed"),
    "a setting of a newer PEFT": ({}, settings(a_new_idea=3, peft_version="9.0"), r"a_new_idea=3.*PEFT 9\.0"),
    "two adapters": ({}, added(f"{LAYER}.lora_A.other.weight", ones(2, 128)), None),
    "an unknown layer": ({}, renamed(lambda name: name.replace("q_proj", "qkv_proj")), "the base has no layer"),
    "codes of a quantisation": ({}, retyped("int8"), r"q_proj.lora_A.weight in int8 \(\d+ of \d+ tensors\)"),
    "weights that are far too large": ({}, scaled(1e30), "answers are not finite"),
    "an alpha that is none": ({}, settings(lora_alpha=float("nan")), "lora_alpha=nan, which must be numbers above 0"),
    "an alpha below 0": ({}, settings(lora_alpha=-16), "lora_alpha=-16, which must be numbers above 0"),
    "one tensor twice": ({}, added(f"_orig_mod.{LAYER}.lora_A.weight", ones(2, 128)), "twice under other names"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_by_name(bundled, registry, by_peft, tmp_path, case):
    """What a server would not answer as the trainer did is refused, the setting or tensor is named."""
    shape, change, words = REFUSED[case]
    folder = by_peft(**shape)
    if case == "two adapters":
        renamed(lambda name: name.replace(".weight", ".default.weight"))(folder)
        words = r"several adapters \(default, other\)"
    if change:
        change(folder)
    before = registry.ledger.entries()
    with pytest.raises(LoraloopError) as refused:
        registration(bundled, registry, tmp_path / "job").register(folder)
    assert re.search(words, str(refused.value), re.S), str(refused.value)
    assert registry.ledger.entries() == before


def test_an_adapter_that_changes_nothing_is_called_that(bundled, registry, by_peft, tmp_path, caplog):
    """Matrices B of zeros are registered, with the word that the adapter answers as its base."""
    folder = by_peft(init_lora_weights=True)
    registration(bundled, registry, tmp_path / "job").register(folder)
    assert "all matrices B are 0, so that it answers as the base does" in caplog.text


def test_an_error_names_the_folder_that_was_given(bundled, registry, by_peft, tmp_path):
    """Weights that are not finite are refused with the path of the user's file, not of the job's copy."""
    folder = by_peft()
    scaled(float("nan"))(folder)
    with pytest.raises(LoraloopError) as refused:
        registration(bundled, registry, tmp_path / "job").register(folder)
    assert str(folder) in str(refused.value)
    assert str(tmp_path / "job") not in str(refused.value)
