"""What adapters cost while serving: mixed batches and single answers against the base alone, in one process.

Every round measures all variants one after the other, so that they share whatever else the machine does; a ratio is the
median over the rounds of the ratio within a round. Nothing ends before its last token: the base has no end token here.
Run: ``python benchmarks/serve.py``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import asyncio
import copy
import hashlib
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from machine import describe

from loraloop.core import atomic
from loraloop.lora import Lora
from loraloop.model import adapters
from loraloop.model.causal import CausalLM
from loraloop.records import GenerationRequest, LoadedModel, Manifest, Version
from loraloop.serve.engine.engine import Engine
from loraloop.serve.local import LocalBackend

ROUNDS, ROWS, TOKENS, REQUESTS = 30, 6, 64, 200
PROMPTS = [f"copy\nopen the old brass gate {'0123456789'[: 2 * row]}\n> " for row in range(ROWS)]
NAMES = ("loraloop@1", "loraloop@2")

Cost = tuple[float, float]
"""Milliseconds per token step: by the clock, and of the processor in all threads."""


def endless() -> LoadedModel:
    """The bundled base without an end token."""
    loaded = CausalLM(name="bundled:tiny").load()
    tokenizer = copy.deepcopy(loaded.tokenizer)
    loaded.model.generation_config.eos_token_id = tokenizer.eos_token = None
    return LoadedModel(loaded.model, tokenizer, loaded.base)


def make(loaded: LoadedModel, folder: Path, number: int) -> Version:
    """An adapter of the default shape with random weights, as a registered version."""
    import torch
    from peft import get_peft_model

    lora = Lora()
    adapted = get_peft_model(loaded.model, lora.peft_config())
    generator = torch.Generator().manual_seed(number)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.05
    adapted.save_pretrained(folder)
    probe = adapters.probe(adapted, loaded.tokenizer)
    adapters.detach(loaded.model)
    manifest = Manifest(
        base=loaded.base,
        rank=lora.r,
        alpha=lora.effective_alpha,
        targets=tuple(lora.targets),
        dataset_fingerprint="",
        template="{input}",
        run_id=None,
        parent_run_id=None,
        weights_sha256=hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest(),
        loraloop_version="",
        probe=probe,
    )
    return Version(name="loraloop", number=number, aliases=(), path=folder, manifest=manifest)


def timed(work: Callable[[], Any]) -> Cost:
    """What ``work`` takes per token step."""
    clock, processor = time.perf_counter(), time.process_time()
    work()
    return 1e3 * (time.perf_counter() - clock) / TOKENS, 1e3 * (time.process_time() - processor) / TOKENS


def asking(engine: Engine, models: Sequence[str]) -> Callable[[], None]:
    """Ask for one answer of each model at once."""

    async def one(model: str, prompt: str) -> None:
        async for _ in engine.generate(
            GenerationRequest(model=model, prompt=prompt, max_tokens=TOKENS, temperature=0.0)
        ):
            pass

    async def every() -> None:
        await asyncio.gather(*(one(model, prompt) for model, prompt in zip(models, PROMPTS, strict=False)))

    return lambda: asyncio.run(every())


def generating(model: Any, tokenizer: Any, rows: int, **changes: Any) -> Callable[[], None]:
    """Let transformers answer the same prompts."""
    import torch
    from transformers import GenerationConfig

    batch = tokenizer(PROMPTS[:rows], padding=True, padding_side="left", return_tensors="pt")
    settings = GenerationConfig(do_sample=False, max_new_tokens=TOKENS, pad_token_id=tokenizer.pad_token_id)

    def generate() -> None:
        with torch.inference_mode():
            model.generate(**batch, generation_config=settings, **changes)

    return generate


def rounds(variants: dict[str, Callable[[], None]]) -> dict[str, list[Cost]]:
    """Every variant once a round, after one round to warm up."""
    for work in variants.values():
        work()
    costs: dict[str, list[Cost]] = {name: [] for name in variants}
    for _ in range(ROUNDS):
        for name, work in variants.items():
            costs[name].append(timed(work))
    return costs


def ratio(costs: dict[str, list[Cost]], one: str, other: str) -> dict[str, float]:
    """How much more ``one`` takes than ``other``, in percent: the median of the rounds, and its quartiles."""

    def within(kind: int) -> list[float]:
        pairs = zip(costs[one], costs[other], strict=True)
        return sorted(100 * (mine[kind] / theirs[kind] - 1) for mine, theirs in pairs)

    low, middle, high = statistics.quantiles(within(0), n=4)
    return {
        "clock": round(middle, 1),
        "clock_quartiles": [round(low, 1), round(high, 1)],
        "processor": round(statistics.median(within(1)), 1),
    }


def latencies(engine: Engine) -> dict[str, dict[str, float]]:
    """Milliseconds of single requests of 16 tokens, base and adapter in turns."""
    taken: dict[str, list[float]] = {"base": [], NAMES[0]: []}

    async def go() -> None:
        for number in range(REQUESTS):
            for model, times in taken.items():
                ask = GenerationRequest(model=model, prompt=PROMPTS[number % ROWS], max_tokens=16, temperature=0.0)
                start = time.perf_counter()
                async for _ in engine.generate(ask):
                    pass
                times.append(1e3 * (time.perf_counter() - start))

    asyncio.run(go())
    return {
        "base" if model == "base" else "adapter": {
            f"p{percent}": round(statistics.quantiles(times, n=100)[percent - 1], 2) for percent in (50, 95, 99)
        }
        for model, times in taken.items()
    }


def peft_mixed(loaded: LoadedModel, versions: Sequence[Version]) -> Callable[[], None]:
    """PEFT's own way to answer a mixed batch, on a copy of the base."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(copy.deepcopy(loaded.model), versions[0].path, adapter_name=NAMES[0])
    model.load_adapter(str(versions[1].path), NAMES[1])
    return generating(model.eval(), loaded.tokenizer, ROWS, adapter_names=["__base__", *NAMES] * (ROWS // 3))


def engine_figures() -> dict[str, Any]:
    """The figures of generation alone, without HTTP."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = endless()
        versions = [make(loaded, Path(folder) / name, number) for number, name in enumerate(NAMES, start=1)]
        peft = peft_mixed(loaded, versions)
        engine = LocalBackend().attach(loaded)
        engine.start()
        for name, version in zip(NAMES, versions, strict=True):
            engine.load(name, version)
        costs = rounds(
            {
                "base, 1 answer": asking(engine, ["base"]),
                "adapter, 1 answer": asking(engine, NAMES[:1]),
                "transformers generate, base, 1 answer": generating(loaded.model, loaded.tokenizer, 1),
                "base, 6 answers": asking(engine, ["base"] * ROWS),
                "base and 2 adapters, 6 answers": asking(engine, ["base", *NAMES] * (ROWS // 3)),
                "transformers generate, base, 6 answers": generating(loaded.model, loaded.tokenizer, ROWS),
                "PEFT adapter_names, base and 2 adapters, 6 answers": peft,
            }
        )
        single = latencies(engine)
        engine.close()
    middle = {
        name: [round(statistics.median(kind), 3) for kind in zip(*each, strict=True)] for name, each in costs.items()
    }
    return {
        "rounds": ROUNDS,
        "tokens_per_answer": TOKENS,
        "ms_per_token_step (median: clock, processor)": middle,
        "percent_more": {
            "mixed batch than base alone": ratio(costs, "base and 2 adapters, 6 answers", "base, 6 answers"),
            "adapter than base, 1 answer": ratio(costs, "adapter, 1 answer", "base, 1 answer"),
            "engine than transformers generate, 1 answer": ratio(
                costs, "base, 1 answer", "transformers generate, base, 1 answer"
            ),
            "engine than transformers generate, 6 answers": ratio(
                costs, "base, 6 answers", "transformers generate, base, 6 answers"
            ),
        },
        "ms_per_request_of_16_tokens": single,
    }


def main() -> None:
    """Measure, print and keep the figures in ``benchmarks/results/serve.json``."""
    figures = {**engine_figures(), **describe("torch", "transformers", "peft")}
    with atomic.write(Path(__file__).parent / "results" / "serve.json") as stream:
        stream.write((json.dumps(figures, indent=2) + "\n").encode())
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
