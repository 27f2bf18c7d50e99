"""Adapters in PEFT's layout, made with numpy alone."""

import dataclasses
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import warm
from loraloop.records import Base, Manifest
from loraloop.registry import manifest as manifests

BASE = Base(
    name="bundled:tiny",
    revision=None,
    sha256="b" * 64,
    tokenizer_sha256="c" * 64,
    chat_template_sha256=None,
    quantization="none",
    dtype="float32",
)
KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"


def describe(folder: Path, base: Base = BASE) -> Manifest:
    """The manifest of what is in ``folder`` now."""
    return Manifest(
        base=base,
        rank=2,
        alpha=4.0,
        targets=("q_proj", "v_proj"),
        dataset_fingerprint="d" * 64,
        template="{input}",
        run_id=None,
        parent_run_id=None,
        weights_sha256=hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest(),
        loraloop_version="0.1.0",
    )


def make(folder: Path, seed: int = 0, **tensors: np.ndarray) -> tuple[Path, Manifest]:
    """Write an adapter of rank 2 whose weights come from ``seed``; ``tensors`` replace or add to them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    values = {KEY.format(side): rng.normal(size=(2, 2)).astype(np.float32) for side in "AB"}
    save_file(values | tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder, describe(folder)


@pytest.fixture(scope="session")
def make_adapter():
    """The maker of adapters."""
    return make


@pytest.fixture(scope="session")
def describe_adapter():
    """The maker of manifests."""
    return describe


@pytest.fixture
def other_base():
    """A base that differs from the adapters' own by its weights."""
    return dataclasses.replace(BASE, name="meta-llama/Llama-2-7b-hf", revision="01c7f73", sha256="e" * 64)


REGISTER = """
import json, sys
from pathlib import Path
from loraloop.registry import manifest
from loraloop.registry.mlflow import MlflowRegistry
home, adapter = map(Path, sys.argv[1:])
version = MlflowRegistry(folder=home).register(adapter, manifest.read(adapter))
print(json.dumps([version.number, version.created, list(version.aliases)]))
"""


@pytest.fixture(scope="session")
def race(tmp_path_factory):
    """A registry made by two processes that registered one adapter at once, and what each was told."""
    home = tmp_path_factory.mktemp("race") / "mlruns"
    adapter, manifest = make(tmp_path_factory.mktemp("first") / "adapter")
    manifests.write(adapter, manifest)
    command = [sys.executable, "-c", REGISTER, str(home), str(adapter)]
    processes = [warm.Warm(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    return home, [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]


@pytest.fixture(scope="session")
def home(race):
    """A folder with a database, whose migrations take seconds: tests have a model name each, not a folder each."""
    return race[0]
