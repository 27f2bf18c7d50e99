"""Which versions can be combined."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from loraloop.errors import ConfigError, DataError, ModelError
from loraloop.records import Base, Manifest, Version
from loraloop.workflows import combination

BASE = Base(
    name="org/base", revision="1", sha256="b" * 64, tokenizer_sha256="t" * 64, chat_template_sha256=None,
    quantization="none", dtype="float32",
)  # fmt: skip
SHAPE = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}


@pytest.fixture
def version(tmp_path):
    """A function that makes a version without weights."""

    def make(number, base=BASE, template="{input}", run=None, **shape):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "adapter_config.json").write_text(json.dumps(SHAPE | shape))
        manifest = Manifest(
            base=base, rank=8, alpha=16.0, targets=("q_proj",), dataset_fingerprint="d", template=template, run_id=run,
            parent_run_id=None, weights_sha256=f"{number}" * 64, loraloop_version="0",
        )  # fmt: skip
        return Version(name="a", number=number, aliases=(), path=folder, manifest=manifest)

    return make


def test_other_targets_of_one_kind_are_combined(version):
    """Versions of one base, rank and template pass, whichever layers they have."""
    combination.require_combinable([version(1), version(2, target_modules=["v_proj"], use_rslora=True, lora_alpha=3)])


OTHERS = {
    "another base": ({"base": replace(BASE, name="org/other", sha256="c" * 64)}, r"a/2 is of the base org/other"),
    "another tokenizer": ({"base": replace(BASE, tokenizer_sha256="u" * 64)}, "combine adapters of one base"),
    "another quantisation": ({"base": replace(BASE, quantization="nf4")}, "trained on a base in nf4"),
    "another template": ({"template": "{input}?"}, "has the template '{input}\\?'"),
    "another rank": ({"r": 4}, r"a/2 has rank 4, .* compress\.rank=RANK"),
    "several ranks": ({"rank_pattern": {"q_proj": 4}}, "a/2 has rank 8 and others by rank_pattern"),
    "targets as a pattern": ({"target_modules": ".*q_proj"}, "a pattern and a list"),
    "other layers": ({"layers_to_transform": [0]}, r"layers_to_transform=\[0\], and a/1 None"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_peft_does_not_combine_is_named(version, case):
    """Each difference that PEFT refuses, or would get wrong without a word, is an error that names both versions."""
    changes, words = OTHERS[case]
    with pytest.raises(ConfigError, match=words):
        combination.require_combinable([version(1), version(2, **changes)])


def test_dora_is_named(version):
    """An adapter that is more than LoRA's two matrices is refused."""
    with pytest.raises(ModelError, match="sets use_dora"):
        combination.require_combinable([version(1), version(2, use_dora=True)])


def test_a_part_without_recorded_answers_is_named(version):
    """A version that was trained elsewhere has no rows to be measured on."""
    with pytest.raises(DataError, match="a version 1 has no run with recorded answers"):
        combination.recorded([version(1)], SimpleNamespace(), 4)
