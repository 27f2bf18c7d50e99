"""The local engine beside transformers, vLLM on a CPU and llama.cpp's server: speed, latency, memory, second turns.

    python benchmarks/engine.py [--model FOLDER] [--vllm PYTHON] [--llama PYTHON --gguf FILE] [--tokens 48]

Every contender answers in a process of its own, one after the other, pinned to the same two cores; one that is not
installed is named as not run. The work is the same: closed loops of one client that asks the base, and of eight that
ask the base, then three adapters in turn (random weights, r=16 on every linear layer), greedy answers of equal length
without an end token. The engine, ``generate`` and ``generate_batch`` are called in the process, the servers over HTTP.

``generate`` has no queue and is asked by one client; ``generate_batch`` takes no adapter for each request, so that it
answers with the base alone. ``--llama`` is a Python that has xllamacpp, whose wheel holds llama.cpp's server.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

from machine import describe

CLIENTS, REQUESTS, ROUNDS = 8, 2, 4
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
NAMES = ("loraloop@1", "loraloop@2", "loraloop@3")
WORDS = "The harbour of the old town lies below the hill, and every ship that enters it "

Stream = Callable[[int, str | None], AsyncIterator[int]]
"""Answers the prompt of a number with an adapter or the base, and yields how many tokens came at once."""


def prompt(number: int) -> str:
    """A prompt of 40 to 80 tokens that begins like no other."""
    return f"{number} ships came. " + WORDS * (2 + number % 3)


async def loop(
    stream: Stream, clients: int, requests: int, adapters: bool, processor: Callable[[], float]
) -> dict[str, Any]:
    """Clients that ask the next thing as soon as they are answered; ``processor`` tells the seconds used so far."""
    first: list[float] = []
    whole: list[float] = []
    count = 0

    async def client(number: int) -> None:
        nonlocal count
        for turn in range(requests):
            began, seen = time.perf_counter(), False
            asked = 100 * turn + number
            async for tokens in stream(asked, NAMES[(number + turn) % len(NAMES)] if adapters else None):
                if not seen:
                    first.append(time.perf_counter() - began)
                seen, count = True, count + tokens
            whole.append(time.perf_counter() - began)

    began, used = time.perf_counter(), processor()
    await asyncio.gather(*map(client, range(clients)))
    seconds, used = time.perf_counter() - began, processor() - used
    return told(count, seconds, whole, first) | {"processor_ms_per_token": round(1000 * used / count, 1)}


def told(tokens: int, seconds: float, whole: list[float], first: list[float]) -> dict[str, Any]:
    """The figures of one run; latencies in seconds."""

    def percentile(values: list[float], share: float) -> float | None:
        return round(sorted(values)[min(len(values) - 1, int(share * len(values)))], 3) if values else None

    return {
        "tokens_per_second": round(tokens / seconds, 1),
        "latency_p50_s": percentile(whole, 0.5),
        "latency_p95_s": percentile(whole, 0.95),
        "first_token_p50_s": percentile(first, 0.5),
    }


def runs(stream: Stream, mixed: bool = True, processor: Callable[[], float] = time.process_time) -> dict[str, Any]:
    """The loops, after an answer of each adapter to warm up."""

    async def go() -> dict[str, Any]:
        for name in (None, *(NAMES if mixed else ())):
            async for _ in stream(7, name):
                pass
        found = {
            "1 client, base": await loop(stream, 1, ROUNDS, False, processor),
            f"{CLIENTS} clients, base": await loop(stream, CLIENTS, REQUESTS, False, processor),
        }
        if mixed:
            found[f"{CLIENTS} clients, {len(NAMES)} adapters"] = await loop(stream, CLIENTS, REQUESTS, True, processor)
        return found

    return asyncio.run(go())


def endless(options: argparse.Namespace) -> Any:
    """The model without an end token."""
    import torch

    from loraloop.model.causal import CausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    loaded = CausalLM(name=str(options.model), dtype=options.dtype).load()
    loaded.model.generation_config.eos_token_id = loaded.tokenizer.eos_token = None
    return loaded


def sha256(folder: Path) -> str:
    """The hash of an adapter's weights."""
    return hashlib.sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest()


def engine(options: argparse.Namespace) -> dict[str, Any]:
    """The local engine, with the time to the first token of a second turn."""
    from loraloop.records import GenerationRequest, Manifest, Version
    from loraloop.serve.local import LocalBackend

    loaded = endless(options)
    backend = LocalBackend(max_batch=CLIENTS).attach(loaded)
    plain = LocalBackend(max_batch=CLIENTS, prefix_cache_mb=0).attach(loaded)
    backend.start()
    for number, name in enumerate(NAMES, start=1):
        folder = options.work / str(number)
        manifest = Manifest(
            base=loaded.base, rank=16, alpha=16, targets=tuple(TARGETS), dataset_fingerprint="", template="{input}",
            run_id=None, parent_run_id=None, weights_sha256=sha256(folder), loraloop_version="",
        )  # fmt: skip
        backend.load(name, Version(name="loraloop", number=number, aliases=(), path=folder, manifest=manifest))

    def asked(text: str, model: str | None, tokens: int) -> GenerationRequest:
        return GenerationRequest(model=model or "base", prompt=text, max_tokens=tokens, temperature=0.0)

    async def stream(number: int, model: str | None) -> AsyncIterator[int]:
        async for chunk in backend.generate(asked(prompt(number), model, options.tokens)):
            yield chunk.tokens

    async def first(chosen: Any, text: str) -> tuple[float, str]:
        began, at, said = time.perf_counter(), 0.0, ""
        async for chunk in chosen.generate(asked(text, None, 8)):
            at, said = at or time.perf_counter() - began, said + chunk.text
        return at, said

    def second_turn(chosen: Any) -> float:
        times = []
        for number in range(3):
            past = f"{number}: " + WORDS * times_1000
            _, said = asyncio.run(first(chosen, past))
            times.append(asyncio.run(first(chosen, f"{past}{said}\nAnd then?\n"))[0])
        return statistics.median(times)

    times_1000 = 1 + 1000 // backend.tokens(WORDS)
    found = runs(stream) | {"tokens_of_the_past": backend.tokens(WORDS * times_1000)}
    found["second_turn_first_token_s"] = round(second_turn(backend), 4)
    backend.close()
    plain.start()
    found["second_turn_without_the_cache_s"] = round(second_turn(plain), 4)
    plain.close()
    return found


def generate(options: argparse.Namespace) -> dict[str, Any]:
    """``transformers.generate`` with one answer at a time, and the engine with the same answers in turn."""
    import torch
    from transformers import GenerationConfig

    from loraloop.records import GenerationRequest
    from loraloop.serve.local import LocalBackend

    loaded = endless(options)
    backend = LocalBackend(prefix_cache_mb=0).attach(loaded)
    backend.start()
    settings = GenerationConfig(do_sample=False, max_new_tokens=options.tokens, pad_token_id=0)

    def theirs(number: int) -> list[int]:
        ids = loaded.tokenizer(prompt(number), return_tensors="pt")
        with torch.inference_mode():
            made: list[int] = loaded.model.generate(**ids, generation_config=settings)[0, ids["input_ids"].shape[1] :]
        return made

    def ours(number: int) -> str:
        asked = GenerationRequest(model="base", prompt=prompt(number), max_tokens=options.tokens, temperature=0.0)

        async def go() -> str:
            return "".join([chunk.text async for chunk in backend.generate(asked)])

        return asyncio.run(go())

    pairs: list[tuple[float, float]] = []
    processor: list[float] = []
    same = 0
    for number in range(-1, options.pairs):
        seconds = []
        for work in (ours, theirs) if number % 2 else (theirs, ours):
            began, used = time.perf_counter(), time.process_time()
            answer = work(abs(number))
            seconds.append((work is theirs, time.perf_counter() - began, time.process_time() - used, answer))
        (_, own, mine, text), (_, other, others, ids) = sorted(seconds, key=lambda each: each[0])
        if number >= 0:
            pairs.append((own, other))
            processor.append(100 * (mine / others - 1))
            same += text == loaded.tokenizer.decode(ids, skip_special_tokens=True)
    backend.close()
    times = [other for _, other in pairs]
    ratios = [100 * (own / other - 1) for own, other in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "1 client, base": told(options.tokens * len(pairs), sum(times), times, []),
        "engine_takes_percent_more": round(middle, 1),
        "engine_takes_percent_more_quartiles": [round(low, 1), round(high, 1)],
        "engine_takes_percent_more_of_the_processor": round(statistics.median(processor), 1),
        "same_answers": f"{same} of {len(pairs)}",
    }


def batches(options: argparse.Namespace) -> dict[str, Any]:
    """Transformers' continuous batching, with the base for every client."""
    from transformers import ContinuousBatchingConfig, GenerationConfig

    loaded = endless(options)
    settings = GenerationConfig(do_sample=False, max_new_tokens=options.tokens, eos_token_id=-1, pad_token_id=0)
    # Without a bound it takes nearly all memory of the machine for its pages.
    pages = ContinuousBatchingConfig(page_size=32, num_blocks=CLIENTS * 16, max_batch_tokens=1024)
    manager = loaded.model.init_continuous_batching(generation_config=settings, continuous_batching_config=pages)
    manager.start()
    queues: dict[str, asyncio.Queue[Any]] = {}

    async def stream(number: int, _: str | None) -> AsyncIterator[int]:
        here, queue = asyncio.get_running_loop(), asyncio.Queue[Any]()
        ids = loaded.tokenizer(prompt(number))["input_ids"]
        name = f"{number}-{time.perf_counter_ns()}"
        queues[name] = queue
        pumps.setdefault("loop", here)
        manager.add_request(ids, request_id=name, max_new_tokens=options.tokens, streaming=True)
        seen = 0
        while True:
            output = await queue.get()
            yield len(output.generated_tokens) - seen
            seen = len(output.generated_tokens)
            if output.is_finished():
                return

    pumps: dict[str, Any] = {}
    going = True

    def pump() -> None:
        while going:
            if (output := manager.get_result(timeout=0.1)) is not None:
                pumps["loop"].call_soon_threadsafe(queues[output.request_id].put_nowait, output)

    thread = threading.Thread(target=pump, daemon=True)
    thread.start()
    found = runs(stream, mixed=False)
    going = False
    thread.join()
    manager.stop(block=True)
    return found | {"adapters": "none: a batch has one model, so the base answers"}


async def over_http(url: str, body: dict[str, Any]) -> AsyncIterator[int]:
    """Tokens of a streamed completion, as many as events with text."""
    import httpx2

    async with httpx2.AsyncClient(timeout=300) as client, client.stream("POST", url, json=body) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {") and ('"choices"' in line or '"content"' in line):
                yield 1


def vllm(options: argparse.Namespace) -> dict[str, Any]:
    """VLLM's server."""
    port = 8123
    variables = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_CPU_KVCACHE_SPACE": "1"}
    command = [
        options.vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", str(options.model), "--enable-lora",
        "--max-lora-rank", "16", "--max-loras", "3", "--max-model-len", "2048", "--dtype", options.dtype, "--port",
        str(port), "--lora-modules", *(f"{name}={options.work / str(n)}" for n, name in enumerate(NAMES, start=1)),
    ]  # fmt: skip
    body = {"max_tokens": options.tokens, "temperature": 0, "ignore_eos": True, "stream": True}

    def stream(number: int, name: str | None) -> AsyncIterator[int]:
        asked = body | {"model": name or str(options.model), "prompt": prompt(number)}
        return over_http(f"http://127.0.0.1:{port}/v1/completions", asked)

    return served(command, variables, f"http://127.0.0.1:{port}/health", partial(runs, stream), options.work)


LLAMA = """
import sys, time, xllamacpp as x
model, port, threads, *loras = sys.argv[1:]
p = x.CommonParams()
p.model.path, p.port, p.hostnames = model, int(port), ["127.0.0.1"]
p.n_parallel, p.n_ctx, p.warmup = 8, 8 * 512, True
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = int(threads)
p.lora_adapters = [x.CommonAdapterLoraInfo(path, 0.0) for path in loras]
server = x.Server(p)
print(x.get_system_info(), flush=True)
time.sleep(1e6)
"""


def llama(options: argparse.Namespace) -> dict[str, Any]:
    """llama.cpp's server with eight slots."""
    port = 8124
    files = [str(options.work / f"{number}.gguf") for number in (1, 2, 3)]
    threads = str(len(os.sched_getaffinity(0)))
    command = [options.llama, "-c", LLAMA, str(options.gguf), str(port), threads, *files]
    body = {"n_predict": options.tokens, "temperature": 0, "ignore_eos": True, "stream": True}

    def stream(number: int, name: str | None) -> AsyncIterator[int]:
        scales = [{"id": at, "scale": float(each == name)} for at, each in enumerate(NAMES)]
        asked = body | {"prompt": prompt(number), "lora": scales, "cache_prompt": False}
        return over_http(f"http://127.0.0.1:{port}/completion", asked)

    found = served(command, {}, f"http://127.0.0.1:{port}/health", partial(runs, stream), options.work)
    return found | {"weights": options.gguf.name}


def served(
    command: list[str], variables: dict[str, str], health: str, work: Callable[..., dict[str, Any]], folder: Path
) -> dict[str, Any]:
    """What ``work`` finds while a server runs, and the server's peak memory."""
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=log, start_new_session=True)
        try:
            began = time.monotonic()
            while not answers(health):
                if process.poll() is not None or time.monotonic() - began > 400:
                    raise RuntimeError((folder / "server.log").read_text(errors="replace")[-2000:])
                time.sleep(0.5)
            found = work(processor=lambda: sum(map(used, family(process.pid)))) | {
                "ready_after_s": round(time.monotonic() - began, 1)
            }
            return found | {"peak_mib": sum(map(peak, family(process.pid)))}
        finally:
            with contextlib.suppress(ProcessLookupError):  # it may have ended by itself
                os.killpg(process.pid, 15)
            process.wait()


def answers(url: str) -> bool:
    """Whether a server is ready."""
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def family(process: int) -> list[int]:
    """A process and all that descend from it."""
    tasks = Path(f"/proc/{process}/task")
    children = [int(child) for each in tasks.glob("*/children") for child in each.read_text().split()]
    return [process, *(other for child in children for other in family(child))]


def used(process: int) -> float:
    """Seconds of the processor that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak(process: int) -> int:
    """Most resident memory of a process so far, in MiB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next((int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM")), 0)


CONTENDERS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "engine": engine, "generate": generate, "generate_batch": batches, "vllm": vllm, "llama.cpp": llama,
}  # fmt: skip


def make(options: argparse.Namespace) -> None:
    """Three adapters with random weights, in PEFT's layout and as GGUF."""
    import torch
    from peft import LoraConfig, get_peft_model

    from loraloop.model.causal import CausalLM
    from loraloop.publish import gguf_lora

    for number in (1, 2, 3):
        loaded = CausalLM(name=str(options.model)).load()
        config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=16, target_modules=TARGETS)
        adapted = get_peft_model(loaded.model, config)
        generator = torch.Generator().manual_seed(number)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data = torch.randn(parameter.shape, generator=generator) * 0.02
        adapted.save_pretrained(options.work / str(number))
        if options.llama:
            file = options.work / f"{number}.gguf"
            gguf_lora.write(file, options.work / str(number), loaded.model.config, "f16")


def alone(name: str, dtype: str, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one contender, from a process of its own on the chosen cores."""
    missing = {"vllm": options.vllm, "llama.cpp": options.llama}
    if name in missing and not missing[name]:
        return {"not_run": "not installed"}
    out = options.work / "figures.json"
    out.unlink(missing_ok=True)
    command = ["taskset", "-c", options.cores, sys.executable, __file__, "--one", name, "--dtype", dtype]
    command += ["--model", str(options.model), "--work", str(options.work), "--tokens", str(options.tokens)]
    command += ["--pairs", str(options.pairs)]
    for key in ("vllm", "llama", "gguf"):
        if getattr(options, key):
            command += [f"--{key}", str(getattr(options, key))]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    print(name, dtype, done.returncode, flush=True)
    if done.returncode:
        return {"not_run": f"failed: {done.stderr.strip().splitlines()[-1][:300]}", "log": done.stderr[-500:]}
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def main() -> None:
    """Measure, print and keep the figures in ``benchmarks/results/engine.json``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path, default=Path("bundled:tiny"))
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--cores", default="0,1")
    for key in ("vllm", "llama", "one"):
        parser.add_argument(f"--{key}")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--gguf", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    options = parser.parse_args()
    if options.one:
        found = CONTENDERS[options.one](options)
        found.setdefault("peak_mib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
        (options.work / "figures.json").write_text(json.dumps(found))
        return
    figures: dict[str, Any] = {"model": options.model.name, "tokens_per_answer": options.tokens}
    figures |= describe("torch", "transformers", "peft")
    with tempfile.TemporaryDirectory() as folder:
        options.work = Path(folder)
        if not options.only or any(not each.startswith("generate") for each in options.only):
            make(options)
        for name, dtype in [(name, dtype) for name in CONTENDERS for dtype in ("float32", "bfloat16")]:
            if (options.only and f"{name},{dtype}" not in options.only) or (name, dtype) == ("llama.cpp", "bfloat16"):
                continue
            figures[name if name == "llama.cpp" else f"{name}, {dtype}"] = alone(name, dtype, options)
            keep(figures)
    print(json.dumps(figures, indent=2))


def keep(figures: dict[str, Any]) -> None:
    """Put the figures of a model beside those of others."""
    from loraloop.core import atomic

    file = Path(__file__).parent / "results" / "engine.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    with atomic.write(file) as stream:
        stream.write((json.dumps(kept | {figures["model"]: figures}, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()
