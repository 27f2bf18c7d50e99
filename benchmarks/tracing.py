"""What the export of answers to MLflow costs a client: the same answers over HTTP, with and without it, in turn.

Servers with the bundled base take turns: one without export, one that sends its answers to an MLflow database beside
it while it answers. A client in a process of its own asks one after the other. What the export adds has a 95% interval
over the rounds. Run: ``python benchmarks/tracing.py``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import server as plain
from machine import describe

from loraloop.core import atomic
from loraloop.feedback.settings import Feedback
from loraloop.monitor.metrics import PrometheusMetrics
from loraloop.serve import run
from loraloop.serve.api import create_app
from loraloop.serve.local import LocalBackend
from loraloop.serve.names import Versions
from loraloop.serve.server import Server
from loraloop.tracing.exporter import exporting
from loraloop.tracing.queue import Queue, put
from loraloop.tracing.settings import Tracing

TURNS, ROUNDS = 3, 8
HOWS = ("off", "on")
TOKENS = {"short": 1, "long": 64}


@contextmanager
def serving(engine: Any, home: Path, tracing: Tracing) -> Iterator[int]:
    """The server in a thread of this process, as the stage sets it up."""
    settings = Server(port=0, keys=home / "keys.json", rate=None)
    versions = Versions(lambda reference: 1 / 0, {})  # type: ignore[arg-type, return-value]
    metrics = PrometheusMetrics(engine.stats)
    sessions = Feedback(folder=home).open(metrics.rated, put(tracing.names) if tracing.names else None)
    app = create_app(engine, sessions, versions, settings, metrics)
    socket, server = settings.listen(), run.server(app, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    with exporting(tracing, sessions.database):
        thread.start()
        yield socket.getsockname()[1]
        server.should_exit = True
        thread.join()
    if tracing.names:
        print(f"{Queue(sessions.database, 'mlflow').waiting()} answers wait", file=sys.stderr)
    sessions.close()


@contextmanager
def asking(port: int) -> Iterator[Any]:
    """A function that asks for answers of so many tokens; returns their milliseconds."""
    command = [sys.executable, plain.__file__, str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(tokens: int) -> list[float]:
            process.stdin.write(f"{tokens}\n")
            process.stdin.flush()
            return json.loads(process.stdout.readline())

        yield ask
        process.stdin.close()


def measure(home: Path) -> dict[tuple[str, str], list[list[float]]]:
    """Milliseconds of the answers of each round, of servers that take turns; every second turn they do so backwards."""
    loaded = plain.endless()
    found: dict[tuple[str, str], list[list[float]]] = {(how, name): [] for how in HOWS for name in TOKENS}
    for turn in range(TURNS):
        for how in HOWS[:: 1 - 2 * (turn % 2)]:
            tracing = Tracing(mlflow=how != "off", folder=home / "mlflow", seconds=1)
            list(tracing.mlflow_traces().assessed(1))  # the database is made once
            with serving(LocalBackend().attach(loaded), home / f"{how}{turn}", tracing) as port, asking(port) as ask:
                for round_ in range(ROUNDS + 1):
                    for name, tokens in TOKENS.items():
                        times = ask(tokens)
                        if round_:  # the first warms up
                            found[how, name].append(times)
    return found


def added(on: list[list[float]], off: list[list[float]], percent: int) -> dict[str, float]:
    """How much greater a percentile is with the export, in ms, and its 95% interval: rounds are drawn anew."""
    rng, rounds = np.random.default_rng(0), np.arange(len(on))

    def difference(chosen: Any) -> float:
        one, other = (np.concatenate([times[place] for place in chosen]) for times in (on, off))
        return float(np.percentile(one, percent) - np.percentile(other, percent))

    drawn = [difference(rng.choice(rounds, len(rounds))) for _ in range(2000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"ms": round(difference(rounds), 2), "from": round(float(low), 2), "to": round(float(high), 2)}


def main() -> None:
    """Measure, print and keep the figures in ``benchmarks/results/tracing.json``."""
    with tempfile.TemporaryDirectory() as home:
        found = measure(Path(home))
    figures = {
        **describe("torch", "fastapi", "uvicorn", "mlflow"),
        "answers_each": TURNS * ROUNDS * plain.EACH,
        "tokens": TOKENS,
        "ms": {
            f"{how} {name}": plain.quantiles([each for some in times for each in some])
            for (how, name), times in found.items()
        },
        "added": {
            f"{name} p{percent}": added(found["on", name], found["off", name], percent)
            for name in TOKENS
            for percent in (50, 95)
        },
    }
    with atomic.write(Path(__file__).parent / "results" / "tracing.json") as stream:
        stream.write((json.dumps(figures, indent=2) + "\n").encode())
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
