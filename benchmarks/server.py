"""What the HTTP server adds to the backend behind it: per request and per token, with the bundled base.

The same answers are asked for in two ways, in turn: straight from the engine, and over loopback by a client in a
process of its own that does no more than HTTP needs. The difference of the medians over answers of one token is the
cost of a request; how it grows with the length of a streamed answer is the cost of a token. Both include the session
that is on disk before an answer ends. Run: ``python benchmarks/server.py``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import asyncio
import http.client
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from machine import describe

from loraloop.core import atomic
from loraloop.feedback.form import router
from loraloop.feedback.settings import Feedback
from loraloop.model.causal import CausalLM
from loraloop.monitor.metrics import PrometheusMetrics
from loraloop.records import GenerationRequest
from loraloop.serve import run
from loraloop.serve.api import create_app
from loraloop.serve.local import LocalBackend
from loraloop.serve.names import Versions
from loraloop.serve.server import Server

ROUNDS, EACH, LONG = 20, 10, 100
PROMPT = "copy\nopen the old brass gate\n> "
GOALS = {"ms_per_request": 5.0, "ms_per_token": 0.3}


def direct(engine: Any, loop: asyncio.AbstractEventLoop, tokens: int) -> list[float]:
    """Milliseconds of answers that the engine gives."""

    async def one() -> float:
        start = time.perf_counter()
        async for _ in engine.generate(
            GenerationRequest(model="base", prompt=PROMPT, max_tokens=tokens, temperature=0.0)
        ):
            pass
        return 1e3 * (time.perf_counter() - start)

    return [loop.run_until_complete(one()) for _ in range(EACH)]


def client(port: int) -> None:
    """The client's process: reads how many tokens to ask for, writes the milliseconds of each answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port)
    for line in sys.stdin:
        body = json.dumps(
            {"model": "base", "prompt": PROMPT, "max_tokens": int(line), "temperature": 0, "stream": True}
        )
        times = []
        for _ in range(EACH):
            start = time.perf_counter()
            connection.request("POST", "/v1/completions", body, {"content-type": "application/json"})
            response = connection.getresponse()
            answer = response.read()
            times.append(1e3 * (time.perf_counter() - start))
            assert answer.endswith(b"[DONE]\n\n"), answer
        print(json.dumps(times), flush=True)


@contextmanager
def serving(engine: Any, home: Path) -> Iterator[int]:
    """The server in a thread of this process, as the stage sets it up."""
    settings = Server(port=0, keys=home / "keys.json", rate=None)
    versions = Versions(lambda reference: 1 / 0, {})  # type: ignore[arg-type, return-value]
    metrics = PrometheusMetrics(engine.stats)
    sessions = Feedback(folder=home).open(metrics.rated)
    app = create_app(engine, sessions, versions, settings, metrics, [router(sessions)])
    socket, server = settings.listen(), run.server(app, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield socket.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        sessions.close()


def measure(home: Path) -> dict[str, list[float]]:
    """Milliseconds per answer, straight and over HTTP, of one token and of many."""
    engine = LocalBackend().attach(endless())
    loop = asyncio.new_event_loop()
    found: dict[str, list[float]] = {"direct short": [], "direct long": [], "http short": [], "http long": []}
    with serving(engine, home) as port:
        command = [sys.executable, __file__, str(port)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as asking:

            def over_http(tokens: int) -> list[float]:
                asking.stdin.write(f"{tokens}\n")
                asking.stdin.flush()
                return json.loads(asking.stdout.readline())

            for round_ in range(ROUNDS + 1):
                for name, tokens in (("short", 1), ("long", LONG)):
                    straight, asked = direct(engine, loop, tokens), over_http(tokens)
                    if round_:  # the first warms up
                        found[f"direct {name}"] += straight
                        found[f"http {name}"] += asked
            asking.stdin.close()
    return found


def endless() -> Any:
    """The bundled base without an end token, so that every answer has its length."""
    loaded = CausalLM(name="bundled:tiny").load()
    loaded.model.generation_config.eos_token_id = loaded.tokenizer.eos_token = None
    return loaded


def main() -> None:
    """Measure, print and keep the figures in ``benchmarks/results/server.json``."""
    with tempfile.TemporaryDirectory() as home:
        found = measure(Path(home))
    middle = {name: statistics.median(times) for name, times in found.items()}
    request = middle["http short"] - middle["direct short"]
    token = (middle["http long"] - middle["direct long"] - request) / (LONG - 1)
    figures = {
        **describe("torch", "fastapi", "uvicorn"),
        "answers_each": ROUNDS * EACH,
        "overhead": {"ms_per_request": round(request, 2), "ms_per_token": round(token, 3)},
        "goals": GOALS,
        "ms": {name: quantiles(times) for name, times in found.items()},
    }
    with atomic.write(Path(__file__).parent / "results" / "server.json") as stream:
        stream.write((json.dumps(figures, indent=2) + "\n").encode())
    print(json.dumps(figures, indent=2))


def quantiles(times: list[float]) -> dict[str, float]:
    """p50, p95 and p99."""
    cuts = statistics.quantiles(times, n=100)
    return {f"p{cut}": round(cuts[cut - 1], 2) for cut in (50, 95, 99)}


if __name__ == "__main__":
    client(int(sys.argv[1])) if len(sys.argv) > 1 else main()
