"""What is published, and what the model card says."""

import dataclasses
import re

import pytest
import yaml

from loraloop.errors import RegistryError
from loraloop.publish.bundle import bundle, card


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
    }
    for fact in ("01c7f73", "b" * 64, "16, 32", "q_proj, v_proj", "d" * 64, "nf4-double", "abc", "0.1.0"):
        assert fact in text
    assert "| exact_match | 0.93 ± 0.032 |" in text
    assert "| loss | 0.01235 |" in text
    assert card(version, metrics, "user/name", "llama2") == text


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
