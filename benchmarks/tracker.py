"""What logging costs a training, per 100 metrics.

A training thread logs five metrics a step; the figures are the time that it spends in `Run.metrics`, and that plus the
time to write everything into the database, which otherwise happens in a thread and at the end. Beside them is what
MLflow takes when each step is logged at once. Run: ``python benchmarks/tracker.py``.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from machine import describe

from loraloop.core import atomic
from loraloop.tracker.mlflow import Mlflow

STEPS, REPEATS = 200, 5
KEYS = ("train/loss", "train/learning_rate", "train/grad_norm", "train/tokens_per_second", "train/epoch")


@dataclass(frozen=True)
class Cost:
    """Milliseconds of a run: in the training thread's calls, until everything is written, and of the processor."""

    calls: float
    wall: float
    cpu: float


def log(tracker: Mlflow, steps: int) -> Cost:
    """Log a run of so many steps."""
    with tracker.start(f"{steps} steps") as run:
        start, cpu = time.perf_counter(), time.process_time()
        for step in range(steps):
            run.metrics(dict.fromkeys(KEYS, 1 / (step + 1)), step=step)
        calls = time.perf_counter() - start
    return Cost(1e3 * calls, 1e3 * (time.perf_counter() - start), 1e3 * (time.process_time() - cpu))


def at_once(tracker: Mlflow, steps: int) -> float:
    """Seconds that MLflow's client takes to log each step as it comes."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient(tracker.tracking_uri)
    run = client.create_run("1").info.run_id
    start = time.perf_counter()
    for step in range(steps):
        now = time.time_ns() // 1_000_000
        client.log_batch(run, [Metric(key, 1 / (step + 1), now, step) for key in KEYS])
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and keep the figures in ``benchmarks/results/tracker.json``."""
    hundreds = STEPS * len(KEYS) / 100
    with tempfile.TemporaryDirectory() as folder:
        tracker = Mlflow(folder=folder, system_metrics=False)
        log(tracker, 1)
        idle = [log(tracker, 0) for _ in range(REPEATS)]
        runs = [log(tracker, STEPS) for _ in range(REPEATS)]
        plain = at_once(tracker, STEPS // 10) * 10

    def per_hundred(part: str) -> float:
        least = [min(getattr(cost, part) for cost in costs) for costs in (runs, idle)]
        return round((least[0] - least[1]) / hundreds, 3)

    figures = {
        "metrics_per_run": STEPS * len(KEYS),
        "best_of": REPEATS,
        "ms_per_100_metrics": {
            "in the training thread": per_hundred("calls"),
            "until written": per_hundred("wall"),
            "processor time, all threads": per_hundred("cpu"),
            "MLflow, each step at once": round(1e3 * plain / hundreds, 1),
        },
        **describe("mlflow"),
    }
    with atomic.write(Path(__file__).parent / "results" / "tracker.json") as stream:
        stream.write((json.dumps(figures, indent=2) + "\n").encode())
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
