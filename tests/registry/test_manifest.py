"""What an adapter's folder must hold to be believed."""

import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.hashing import sha256_json
from loraloop.errors import ModelError, RegistryError
from loraloop.records import Change, Manifest, Probe
from loraloop.registry import manifest as manifests

PROBE = Probe(prompt="x", tokens=(3, 1), logits=(0.1, -2.5))


@pytest.fixture
def adapter(make_adapter, tmp_path):
    return make_adapter(tmp_path / "adapter")


def test_a_manifest_survives_the_disk(adapter):
    """What is written beside the weights is read back equal."""
    folder, manifest = adapter
    manifests.write(folder, manifest)
    assert manifests.read(folder) == manifest


def test_lm_evals_tasks_are_read_back_and_written_only_where_they_were_measured(adapter):
    """A manifest keeps each metric's change with its interval; without any, earlier versions read it."""
    folder, manifest = adapter
    measured = dataclasses.replace(manifest, lm_eval={"piqa/acc": Change(before=0.6, after=0.5, low=-0.2, high=0.1)})
    manifests.write(folder, measured)
    assert manifests.read(folder) == measured == Manifest.from_dict(json.loads(json.dumps(measured.to_dict())))
    assert "lm_eval" not in manifest.to_dict()


def test_a_recorded_probe_is_read_back_and_may_be_missing(adapter):
    """A manifest keeps the probe it was given, and one that was written before there were any has none."""
    folder, manifest = adapter
    probed = dataclasses.replace(manifest, probe=PROBE)
    manifests.write(folder, probed)
    assert manifests.read(folder) == probed == Manifest.from_dict(json.loads(json.dumps(probed.to_dict())))
    values = manifest.to_dict()
    del values["probe"]
    (folder / "manifest.json").write_text(json.dumps(values))
    assert manifests.read(folder) == manifest == Manifest.from_dict(values)


def test_a_sound_adapter_verifies(adapter):
    """A folder with PEFT's two files and a fitting manifest passes."""
    manifests.verify(*adapter)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ('{"rank": 2', "is damaged"),
        ("{}", "base: Field required"),
        ('{"base": {}, "rank": "many"}', "base.name: Field required"),
    ],
)
def test_a_damaged_manifest_is_told(adapter, damage, words):
    """A manifest that is cut short or lacks a key is an error that names the file and the key."""
    folder, _ = adapter
    (folder / "manifest.json").write_text(damage)
    with pytest.raises(RegistryError, match=words):
        manifests.read(folder)


def test_a_folder_without_manifest_is_told(adapter):
    """Without a manifest the base cannot be checked, and the error says so."""
    with pytest.raises(RegistryError, match=r"no manifest.json, so its base cannot be checked"):
        manifests.read(adapter[0])


def test_missing_files_are_named(adapter, tmp_path):
    """An absent folder and an absent file are named, with what is there instead."""
    folder, manifest = adapter
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(RegistryError, match=r"lacks adapter_model.safetensors; it holds adapter_config.json"):
        manifests.verify(folder, manifest)
    with pytest.raises(RegistryError, match="does not exist"):
        manifests.verify(tmp_path / "nowhere", manifest)


@pytest.mark.parametrize("name", ["training_args.bin", "checkpoint-5/optimizer.pt", "model.PKL"])
def test_pickles_are_refused_anywhere_in_the_folder(adapter, name):
    """A file that runs code when it is loaded stops the registration, however deep it lies."""
    folder, manifest = adapter
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(b"")
    with pytest.raises(RegistryError, match=f"pickle files, which run code when loaded: {name}"):
        manifests.verify(folder, manifest)


@settings(max_examples=25, deadline=None)
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(make_adapter, tmp_path_factory, place, bit):
    """One bit of the weights file, anywhere, changes its SHA-256 and is refused."""
    folder, manifest = make_adapter(tmp_path_factory.mktemp("flip") / "adapter")
    data = bytearray((folder / "adapter_model.safetensors").read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    (folder / "adapter_model.safetensors").write_bytes(data)
    with pytest.raises(RegistryError, match="altered or cut short"):
        manifests.verify(folder, manifest)


@pytest.mark.parametrize("size", [0, 4, 60, 200])
def test_truncated_weights_are_refused_also_with_a_matching_hash(adapter, describe_adapter, size):
    """A file cut short is no safetensors file, even where the manifest was made from the cut file."""
    folder, _ = adapter
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RegistryError, match="truncated or not a safetensors file"):
        manifests.verify(folder, describe_adapter(folder))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(make_adapter, tmp_path, value):
    """One NaN or infinity in one tensor is found and the tensor is named."""
    tensor = np.zeros((3, 5), np.float32)
    tensor[1, 2] = value
    folder, manifest = make_adapter(tmp_path / "broken", **{"base_model.model.broken.lora_A.weight": tensor})
    with pytest.raises(RegistryError, match=r"1 of 3 tensors hold NaN or infinity, first base_model.model.broken"):
        manifests.verify(folder, manifest)


@pytest.mark.parametrize("key", ["model.layers.0.q_proj.lora_A.weight", "base_model.model.q_proj.weight"])
def test_weights_that_peft_would_ignore_are_refused(make_adapter, describe_adapter, tmp_path, key):
    """Tensors under another prefix, or without any LoRA matrix, are not taken for an adapter."""
    from safetensors.numpy import save_file

    folder, _ = make_adapter(tmp_path / "foreign")
    save_file({key: np.zeros((2, 2), np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises(RegistryError, match="no LoRA weights in PEFT's layout"):
        manifests.verify(folder, describe_adapter(folder))


@pytest.mark.parametrize(("change", "words"), [({"rank": 8}, "r=2, not 8"), ({"alpha": 64.0}, "lora_alpha=4, not 64")])
def test_a_configuration_that_differs_from_the_manifest_is_refused(adapter, change, words):
    """Rank and alpha stand in both files and must agree."""
    folder, manifest = adapter
    with pytest.raises(RegistryError, match=words):
        manifests.verify(folder, dataclasses.replace(manifest, **change))


@pytest.mark.parametrize("text", ["[]", "{", ""])
def test_a_configuration_that_is_no_object_is_refused(adapter, text):
    """An adapter_config.json that is not a JSON object is an error, not a traceback."""
    folder, manifest = adapter
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(RegistryError, match=r"adapter_config.json (is not JSON|holds list)"):
        manifests.verify(folder, manifest)


def test_an_adapter_for_another_base_names_both(adapter, other_base):
    """The error names what it was trained on and what the model is, with revision and hash."""
    _, manifest = adapter
    manifests.verify_adapter(manifest.base, manifest)
    with pytest.raises(ModelError) as error:
        manifests.verify_adapter(other_base, manifest)
    for word in ("bundled:tiny", "bbbbbbbbbbbb", "meta-llama/Llama-2-7b-hf", "01c7f73", "eeeeeeeeeeee"):
        assert word in str(error.value)


def test_another_tokenizer_is_another_base_but_another_quantisation_is_not(adapter):
    """An adapter fits the same weights in NF4, and does not fit them under another tokenizer."""
    _, manifest = adapter
    manifests.verify_adapter(dataclasses.replace(manifest.base, quantization="nf4", dtype="bfloat16"), manifest)
    with pytest.raises(ModelError, match="trained on another tokenizer"):
        manifests.verify_adapter(dataclasses.replace(manifest.base, tokenizer_sha256="f" * 64), manifest)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quantization": "nf4-double"}, "quantisation nf4 there and nf4-double here"),
        ({"quantizer": "other"}, "quantiser bitsandbytes there and other here"),
        ({"block_size": 128}, "block size 64 there and 128 here"),
        ({"dtype": "float16"}, "compute dtype bfloat16 there and float16 here"),
    ],
)
def test_a_base_that_is_quantised_otherwise_is_refused(adapter, change, words):
    """An adapter of an NF4 base is not loaded on one of another quantiser, block size or compute type."""
    _, manifest = adapter
    nf4 = {"quantization": "nf4", "quantizer": "bitsandbytes", "block_size": 64, "dtype": "bfloat16"}
    trained = dataclasses.replace(manifest, base=dataclasses.replace(manifest.base, **nf4))
    manifests.verify_adapter(trained.base, trained)
    with pytest.raises(ModelError, match=words):
        manifests.verify_adapter(dataclasses.replace(trained.base, **change), trained)


def test_content_is_what_an_adapter_is_not_where_it_came_from(adapter):
    """The content hash ignores the run, the base's path and PEFT's set order, and sees alpha and the targets."""
    folder, manifest = adapter
    content = manifests.content_sha256(folder, manifest)
    config = json.loads((folder / "adapter_config.json").read_text())

    def changed(**changes):
        (folder / "adapter_config.json").write_text(json.dumps(config | changes))
        return manifests.content_sha256(folder, manifest)

    assert manifests.content_sha256(folder, dataclasses.replace(manifest, run_id="r", parent_run_id="p")) == content
    assert manifests.content_sha256(folder, dataclasses.replace(manifest, probe=PROBE)) == content
    assert (
        manifests.content_sha256(folder, dataclasses.replace(manifest, compressed_from="a", storage="int8")) == content
    )
    assert changed(target_modules=["v_proj", "q_proj"], base_model_name_or_path="/tmp/tiny") == content  # noqa: S108
    assert changed(lora_alpha=8) != content
    assert changed(target_modules=["q_proj"]) != content


def test_the_content_of_earlier_versions_stays(adapter):
    """A manifest of an earlier version, without origin, storage and quantiser, is read, and has its old hash."""
    folder, manifest = adapter
    earlier = manifest.to_dict()
    for key in ("storage", "compressed_from", "combined_from"):
        earlier.pop(key)
    for key in manifests.LATER:
        earlier["base"].pop(key)
    (folder / "manifest.json").write_text(json.dumps(earlier))
    read = manifests.read(folder)
    assert (read.storage, read.compressed_from, read.combined_from) == ("plain", None, ())
    facts = {key: value for key, value in earlier.items() if key not in manifests.ORIGIN}
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert manifests.content_sha256(folder, read) == sha256_json([facts, settings])
