"""What is published, and what the model card says."""

import dataclasses
import json
import re

import pytest
import yaml

from loraloop.core import adapter_files
from loraloop.core.adapter_files import MANIFEST, PACKED, WEIGHTS, manifest_bytes
from loraloop.core.hashing import sha256
from loraloop.errors import RegistryError
from loraloop.publish.bundle import bundle, card, chosen, marker, may_differ


def test_the_manifest_comes_last(version, metrics):
    """The bundle holds PEFT's two files, the card and, at the end, the manifest."""
    names = list(bundle(version, metrics, "user/name"))
    assert names == ["adapter_config.json", "adapter_model.safetensors", "README.md", "manifest.json"]


def test_a_folder_that_was_never_registered_is_not_published(version, metrics):
    """Number 0 means a plain folder, and the error says to register it."""
    with pytest.raises(RegistryError, match="stage=register"):
        bundle(dataclasses.replace(version, number=0), metrics, "x")


def test_the_card_tells_what_the_adapter_is(version, metrics):
    """Base with revision and hash, rank, alpha, data, run and scores stand in the card, with the Hub's header."""
    text = card(version, metrics, "user/name", "llama2")
    header = yaml.safe_load(text.split("---\n")[1])
    assert header == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "license": "llama2",
        "base_model": "meta-llama/Llama-2-7b-hf",
        "base_model_relation": "adapter",
        "tags": ["lora", "loraloop"],
        "model-index": header["model-index"],
    }
    for fact in ("01c7f73", "b" * 64, "16, 32", "q_proj, v_proj", "d" * 64, "nf4-double", "abc", "0.1.0"):
        assert fact in text
    assert "| exact_match | 0.93 ± 0.032 |" in text
    assert "| loss | 0.01235 |" in text
    assert card(version, metrics, "user/name", "llama2") == text


def test_the_hub_reads_the_header(version, metrics):
    """The Hub's own reader finds base, licence, library, task, tags, and each score with its standard error."""
    from huggingface_hub import ModelCard

    data = ModelCard(card(version, metrics, "user/name", "llama2")).data
    assert (data.base_model, data.license, data.library_name) == ("meta-llama/Llama-2-7b-hf", "llama2", "peft")
    assert (data.pipeline_tag, data.tags, data.model_name) == ("text-generation", ["lora", "loraloop"], "loraloop-v1")
    found = {each.metric_type: (each.metric_value, each.metric_args) for each in data.eval_results}
    assert found == {"exact_match": (0.93, {"standard_error": 0.0319}), "loss": (0.0123456, None)}
    assert {each.dataset_revision for each in data.eval_results} == {"d" * 64}
    assert ModelCard(card(version, None, "user/name")).data.eval_results is None
    nothing = dataclasses.replace(metrics, values={"loss": float("nan")})
    assert "model-index" not in card(version, nothing, "user/name")


@pytest.mark.parametrize("name", ["meta-llama/Llama-2-7b-hf", "bundled:tiny", "/models/it's mine"])
def test_the_code_on_the_card_compiles(make_version, tmp_path, name):
    """The lines that load the adapter are Python, for a base on the Hub, in the package or in a folder."""
    text = card(make_version(tmp_path / "v", base=name), None, "user/name")
    code = re.search(r"```python\n(.*?)\n```\n", text, re.DOTALL)[1]
    compile(code, "card", "exec")
    assert repr(name) in code
    assert "PeftModel.from_pretrained(base, 'user/name')" in code
    assert ("base_model:" in text) == (name == "meta-llama/Llama-2-7b-hf")


def test_a_template_with_fences_does_not_break_the_card(version):
    """A template that holds a code fence is fenced with a longer one."""
    assert "````text\n### {instruction}\n```{input}```\n````\n" in card(version, None, "x")


def test_without_scores_there_is_no_empty_table(version):
    """The card of an adapter without scores leaves the table out."""
    assert "Scores" not in card(version, None, "x")


def test_an_export_is_published_as_it_is(version, tmp_path):
    """Of an export every file is taken, what it says of itself last; card and measurements may differ where it lies."""
    folder = tmp_path / "merged"
    folder.mkdir()
    for name in ("model.safetensors", "export.json", "README.md", "parity-llama_cpp.json"):
        (folder / name).write_text(name)
    files = chosen(version, None, "x", None, folder)
    assert (len(files), marker(files)) == (4, "export.json")
    assert [name for name in files if may_differ(name)] == ["README.md", "parity-llama_cpp.json"]


def test_what_was_measured_of_exports_does_not_change_what_is_published(version, metrics):
    """A parity that is noted in the manifest stands in the card, and the published manifest stays byte for byte."""
    from loraloop.records import Parity

    facts = {"versions": {}, "machine": "", "measured": "", "differences": (), "logits": None, "scores": {}}
    numbers = {"rows": 4, "agreement": 1.0, "min_agreement": 0.98, "load_seconds": 0, "tokens_per_second": 0}
    made = Parity(runtime="vllm", form="merged", dtype="bfloat16", bytes=1, **facts, **numbers)
    noted = dataclasses.replace(version, manifest=dataclasses.replace(version.manifest, parity=(made,)))
    path = version.path / "manifest.json"
    path.write_bytes(manifest_bytes(version.manifest.to_dict()))
    before = path.read_bytes()
    path.write_bytes(manifest_bytes(json.loads(json.dumps(noted.manifest.to_dict()))))
    assert bundle(noted, metrics, "x")["manifest.json"] == before
    assert "| merged bfloat16 | vllm () | 4 of 4 (0.98 asked) |" in card(noted, metrics, "x")


@pytest.mark.parametrize("storage", ["int8", "nf4"])
def test_packed_weights_are_published_as_peft_reads_them(version, metrics, storage):
    """PEFT's file holds the weights in float32, the packed one is left out, and manifest and card name the former."""
    import torch
    from safetensors.torch import load

    weights = {"base_model.model.x.lora_A.weight": torch.eye(4), "base_model.model.x.lora_B.weight": torch.eye(4)}
    (version.path / WEIGHTS).unlink()
    adapter_files.write(version.path, weights, b"{}", storage)
    manifest = dataclasses.replace(
        version.manifest, storage=storage, weights_sha256=sha256(adapter_files.weights(version.path))
    )
    (version.path / MANIFEST).write_bytes(manifest_bytes(manifest.to_dict()))
    files = bundle(dataclasses.replace(version, manifest=manifest), metrics, "x")
    assert PACKED not in files
    assert {name: value.tolist() for name, value in load(files[WEIGHTS]).items()} == {
        name: value.tolist() for name, value in weights.items()
    }
    told = json.loads(files[MANIFEST])
    assert (told["storage"], told["weights_sha256"]) == ("plain", sha256(files[WEIGHTS]))
    assert told["weights_sha256"] in files["README.md"].decode()
    assert f"| weights rounded to | {storage} |" in files["README.md"].decode()
