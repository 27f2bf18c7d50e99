"""A server under bounded traffic: base and two adapters mixed, adapters swapped, bad ones tried, the process killed.

    python benchmarks/load.py [--seconds 600] [--clients 4] [--out benchmarks/results/load.json]
    python benchmarks/load.py --requests 50000 --out benchmarks/results/server_memory.json

Two small adapters are trained first. Every answer is greedy and is held against the one that the model gave alone. Each
10 s an adapter is unloaded (the next request brings it back from the registry), each 60 s a damaged one is offered, and
in the middle the server is killed with SIGKILL and started again: every session that a client was told of must be kept.

With --requests nothing is swapped or killed: base, two versions and an alias give that many answers of 1 to 4 tokens,
and the memory of the server (RSS) is read each 1,000 of them.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
from machine import describe

MODELS = ("base", "loraloop@1", "loraloop@2")
TOKENS = 24
SAMPLE_REQUESTS = 1000
SWAP_SECONDS, BAD_SECONDS, SAMPLE_SECONDS = 10, 60, 5
PROGRAM = [sys.executable, "-m", "loraloop"]


@dataclass
class Report:
    """What the clients and the operator saw."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    acknowledged: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    swaps: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    memory: list[int] = field(default_factory=list)
    load: list[float] = field(default_factory=list)


class Server:
    """``loraloop stage=serve`` as a process."""

    def __init__(self, folder: Path) -> None:
        command = [*PROGRAM, "stage=serve", "server.port=0", "server.names={}"]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout or ():
            if found := re.search(r"(http://\S+)/v1$", line.strip()):
                self.address = found[1]
                break
        for _ in range(600):
            if _status(f"{self.address}/readyz") == 200:
                return
            time.sleep(0.1)
        raise RuntimeError("the server is not ready")

    def end(self, number: int) -> None:
        """Send a signal and wait."""
        self.process.send_signal(number)
        self.process.wait(timeout=60)


def _status(address: str) -> int | None:
    try:
        return httpx2.get(address, timeout=5).status_code
    except httpx2.HTTPError:
        return None


def prepare(folder: Path) -> list[str]:
    """Two adapters in the registry, and the prompts."""
    small = ["source.runs=10", "trainer.epochs=2", "evaluation.max_rows=8", "tracker=none", "gate.min_rows=1"]
    for rank in (8, 16):
        subprocess.run(
            [*PROGRAM, f"lora.r={rank}", f"seed={rank}", *small], cwd=folder, check=True, capture_output=True
        )
    rng = np.random.default_rng(0)
    lines = ["".join(rng.choice(list("HT"), size=int(rng.integers(8, 33)))) for _ in range(12)]
    return [f"Count the heads and tails.\n{line}\n> " for line in lines]


def ask(client: httpx2.Client, address: str, model: str, prompt: str) -> httpx2.Response:
    body = {"model": model, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0}
    return client.post(f"{address}/v1/completions", json=body, timeout=90)


class Load:
    """Traffic, swaps and bad adapters until told to stop."""

    def __init__(self, folder: Path, server: Server, prompts: list[str]) -> None:
        self.folder, self.server, self.prompts, self.report = folder, server, prompts, Report()
        self.ended, self.paused = threading.Event(), threading.Event()
        with httpx2.Client() as client:
            self.truth = {
                (model, prompt): ask(client, server.address, model, prompt).json()["choices"][0]["text"]
                for model in MODELS
                for prompt in prompts
            }

    def client(self, number: int) -> None:
        """Ask at random, and hold every answer against the truth."""
        rng = np.random.default_rng(number)
        with httpx2.Client() as client:
            while not self.ended.is_set():
                model, prompt = str(rng.choice(MODELS)), str(rng.choice(self.prompts))
                began = time.perf_counter()
                try:
                    answer = ask(client, self.server.address, model, prompt)
                except httpx2.HTTPError as error:
                    self.report.statuses["killed" if self.paused.is_set() else type(error).__name__] += 1
                    time.sleep(0.2)
                    continue
                self.report.seconds.append(time.perf_counter() - began)
                self._note(model, prompt, answer)
                time.sleep(float(rng.uniform(0.05, 0.25)))

    def _note(self, model: str, prompt: str, answer: httpx2.Response) -> None:
        self.report.statuses[str(answer.status_code)] += 1
        if session := answer.headers.get("x-loraloop-session"):
            self.report.acknowledged.append(session)
        if answer.status_code == 200:
            text = answer.json()["choices"][0]["text"]
            if text != self.truth[model, prompt]:
                self.report.wrong.append(f"{model}: {text!r}, not {self.truth[model, prompt]!r}")

    def operator(self) -> None:
        """Swap adapters, offer damaged ones, and watch the memory."""
        began = swapped = tried = sampled = time.monotonic()
        turn = 0
        while not self.ended.wait(0.5):
            now = time.monotonic()
            if self.paused.is_set():
                continue
            if now - swapped >= SWAP_SECONDS:
                swapped, turn = now, turn + 1
                done = self._post("unload_lora_adapter", {"lora_name": MODELS[1 + turn % 2]})
                self.report.swaps += done == 200
            if now - tried >= BAD_SECONDS:
                tried = now
                self.report.refused[self._bad(turn)] += 1
            if now - sampled >= SAMPLE_SECONDS and now - began > SAMPLE_SECONDS:
                sampled = now
                self.report.memory.append(_memory(self.server.process.pid))
                self.report.load.append(os.getloadavg()[0])

    def _post(self, route: str, body: dict[str, Any]) -> int:
        try:
            return httpx2.post(f"{self.server.address}/v1/{route}", json=body, timeout=60).status_code
        except httpx2.HTTPError:
            return 0

    def _bad(self, turn: int) -> int:
        """Offer a copy of an adapter with one byte changed, or cut short."""
        (source, *_) = sorted((self.folder / "mlruns/artifacts/adapters/loraloop").iterdir())
        copy = self.folder / f"bad{turn}"
        shutil.copytree(source, copy)
        weights = copy / "adapter_model.safetensors"
        weights.chmod(0o644)
        data = bytearray(weights.read_bytes())
        data[-100] ^= 0xFF
        weights.write_bytes(data if turn % 2 else data[: len(data) // 2])
        return self._post("load_lora_adapter", {"lora_name": f"bad{turn}", "lora_path": str(copy)})


def _memory(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def kept(folder: Path) -> set[str]:
    with sqlite3.connect(f"file:{folder}/mlruns/sessions.db?mode=ro", uri=True) as database:
        return {row[0] for row in database.execute("SELECT id FROM sessions")}


def steady(folder: Path, requests: int, clients: int) -> dict[str, Any]:
    """The server's memory over many small answers."""
    prompts, server = prepare(folder), Server(folder)
    left, statuses, memory, seconds = iter(range(1, requests + 1)), Counter[str](), [], []
    taking = threading.Lock()

    def client(number: int) -> None:
        rng = np.random.default_rng(number)
        with httpx2.Client() as http:
            while True:
                with taking:
                    done = next(left, None)
                    if done is None:
                        return
                    if done % SAMPLE_REQUESTS == 0:
                        memory.append(round(_memory(server.process.pid) / 2**20, 1))
                body = {
                    "model": str(rng.choice([*MODELS, "loraloop@candidate"])),
                    "prompt": str(rng.choice(prompts)),
                    "max_tokens": int(rng.integers(1, 5)),
                }
                began = time.perf_counter()
                answer = http.post(f"{server.address}/v1/completions", json=body, timeout=90)
                seconds.append(time.perf_counter() - began)
                statuses[str(answer.status_code)] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.end(signal.SIGTERM)
    tail = np.array(memory[len(memory) // 2 :])
    slope = np.polyfit(np.arange(len(tail)), tail, 1)[0] if len(tail) > 1 else 0.0
    return {
        "requests": requests,
        "clients": clients,
        "statuses": dict(statuses),
        "sessions": len(kept(folder)),
        "latency_seconds": {f"p{p}": round(float(np.percentile(seconds, p)), 3) for p in (50, 95, 99)},
        "memory_mib": memory,
        "kib_per_request_in_the_second_half": round(float(slope) * 1024 / SAMPLE_REQUESTS, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "load.json")
    parser.add_argument("--requests", type=int, help="watch the memory over so many small answers instead")
    arguments = parser.parse_args()
    machine = describe("torch", "peft", "fastapi", "uvicorn", "sqlalchemy")
    if arguments.requests:
        with tempfile.TemporaryDirectory() as scratch:
            report = machine | steady(Path(scratch), arguments.requests, arguments.clients)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n")
        print(json.dumps(report, indent=2))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prompts = prepare(folder)
        load = Load(folder, Server(folder), prompts)
        threads = [threading.Thread(target=load.client, args=(number,)) for number in range(arguments.clients)]
        threads.append(threading.Thread(target=load.operator))
        for thread in threads:
            thread.start()
        time.sleep(arguments.seconds / 2)
        load.paused.set()
        load.server.end(signal.SIGKILL)
        lost_at_kill = sorted(set(load.report.acknowledged) - kept(folder))
        load.server = Server(folder)
        load.paused.clear()
        before_kill, load.report.memory = load.report.memory, []
        time.sleep(arguments.seconds / 2)
        load.ended.set()
        for thread in threads:
            thread.join()
        load.server.end(signal.SIGTERM)
        lost = sorted(set(load.report.acknowledged) - kept(folder))
    seen = load.report
    report = {
        **machine,
        "seconds": arguments.seconds,
        "clients": arguments.clients,
        "statuses": dict(seen.statuses),
        "wrong_answers": seen.wrong,
        "acknowledged_sessions": len(seen.acknowledged),
        "lost_at_kill": lost_at_kill,
        "lost": lost,
        "swaps": seen.swaps,
        "bad_adapters": {str(status): count for status, count in seen.refused.items()},
        "latency_seconds": {f"p{p}": round(float(np.percentile(seen.seconds, p)), 3) for p in (50, 95, 99)},
        "load_average_meanwhile": {f"p{p}": round(float(np.percentile(seen.load, p)), 1) for p in (5, 50, 95)},
        "memory_mib": [[round(size / 2**20) for size in each] for each in (before_kill, seen.memory)],
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps({key: value for key, value in report.items() if key != "memory_mib"}, indent=2))


if __name__ == "__main__":
    main()
