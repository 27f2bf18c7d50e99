"""Registered versions, made by hand."""

import json
from pathlib import Path

import pytest

from loraloop.records import Base, Manifest, Score, Version

METRICS = Score(rows=64, values={"exact_match": 0.93, "loss": 0.0123456}, errors={"exact_match": 0.0319})


def make(folder: Path, number: int = 1, weights: bytes = b"weights", base: str = "meta-llama/Llama-2-7b-hf") -> Version:
    """A version whose folder holds ``weights``."""
    identity = Base(
        name=base,
        revision="01c7f73",
        sha256="b" * 64,
        tokenizer_sha256="c" * 64,
        chat_template_sha256=None,
        quantization="nf4-double",
        dtype="bfloat16",
    )
    manifest = Manifest(
        base=identity,
        rank=16,
        alpha=32.0,
        targets=("q_proj", "v_proj"),
        dataset_fingerprint="d" * 64,
        template="### {instruction}\n```{input}```",
        run_id="abc",
        parent_run_id=None,
        weights_sha256=weights.hex(),
        loraloop_version="0.1.0",
    )
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text('{"r": 16}')
    (folder / "adapter_model.safetensors").write_bytes(weights)
    (folder / "manifest.json").write_text(json.dumps(manifest.to_dict()))
    return Version(name="loraloop", number=number, aliases=(), path=folder, manifest=manifest)


@pytest.fixture(scope="session")
def make_version():
    """The maker of versions."""
    return make


@pytest.fixture
def version(tmp_path):
    """Version 1."""
    return make(tmp_path / "kept" / "one")


@pytest.fixture
def other(tmp_path):
    """Another adapter under the same number, as another registry would have it."""
    return make(tmp_path / "kept" / "other", weights=b"others")


@pytest.fixture
def metrics():
    """Scores for the card."""
    return METRICS
