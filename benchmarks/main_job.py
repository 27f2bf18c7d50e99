"""Exact match of the main job over seeds, threads and vector instructions: does the score hang on rounding?

    python benchmarks/main_job.py [--seeds 0 1 2 3 4] [--threads 1 2] [--capabilities default avx2 own] [--at-once 1]
                                  [--model tiny] [--out benchmarks/results/main_job.json]

Every cell is `loraloop` as a person gives it, with `seed` and `model` its only overrides, in a process and a folder of
its own. OMP_NUM_THREADS sets PyTorch's threads and ATEN_CPU_CAPABILITY its kernels; `own` leaves the latter to the
machine. A seed draws other flips, another split, other initial adapters and another row order. Seconds are those of
the training alone, without validation, the command's start, its estimate and its answers; a stopwatch around the
trainer reads the wall clock and the process's processor time. With --at-once 2 two cells share the machine, and their
times are not those of an idle one. A result is kept as soon as it is there, and a second call goes on where the first
one ended.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from machine import describe

HERE = Path(__file__).parent
OWN = "own"
WATCHED = """
import json, sys, time
from loraloop.__main__ import main
from loraloop.trainer import fit

train = fit._train

def watched(trainer, start):
    wall, processor, evaluate = time.perf_counter(), time.process_time(), trainer.evaluate
    spent = [0.0]
    def outside(*arguments, **options):
        began = time.process_time()
        try:
            return evaluate(*arguments, **options)
        finally:
            spent[0] += time.process_time() - began
    trainer.evaluate = outside
    seconds = train(trainer, start)
    import torch
    found = {
        "wall": seconds,
        "processor": time.process_time() - processor - spent[0],
        "threads": torch.get_num_threads(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }
    print("watched", json.dumps(found), file=sys.stderr)
    return seconds

fit._train = watched
sys.argv[0] = "loraloop"
main()
"""


def cell(seed: int, threads: int, capability: str, model: str) -> dict[str, Any]:
    """Give the command once and read what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "ATEN_CPU_CAPABILITY"}
    environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads), "COLUMNS": "200"}
    if capability != OWN:
        environment["ATEN_CPU_CAPABILITY"] = capability
    command = [sys.executable, "-c", WATCHED, f"seed={seed}", f"model={model}"]
    with tempfile.TemporaryDirectory() as folder:
        began, load = time.perf_counter(), os.getloadavg()[0]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        whole = time.perf_counter() - began
        scores = {
            path.parent.name: json.loads(path.read_text())
            for path in Path(folder).glob("mlruns/jobs/*/evaluation/*/score.json")
        }
    if done.returncode:
        raise SystemExit(f"seed={seed} threads={threads} {capability}: {done.stderr}")
    watched = json.loads(re.findall(r"^watched (.*)$", done.stderr, re.MULTILINE)[-1])
    assert watched["threads"] == threads
    return {
        "seed": seed,
        "threads": threads,
        "capability": capability,
        "kernels": watched["kernels"],
        "base_exact_match": scores["base"]["exact_match"],
        "exact_match": scores["adapter"]["exact_match"],
        "loss": scores["adapter"]["loss"],
        "training_seconds": round(watched["wall"], 1),
        "training_processor_seconds": round(watched["processor"], 1),
        "command_seconds": round(whole, 1),
        "load_average_before": round(load, 2),
    }


def show(cells: list[dict[str, Any]]) -> None:
    """One line a cell, then the range."""
    print(f"{'seed':>4} {'threads':>7} {'kernels':>10} {'base':>7} {'adapter':>8} {'wall s':>7} {'processor s':>11}")
    for each in cells:
        print(
            f"{each['seed']:>4} {each['threads']:>7} {each['kernels']:>10} {each['base_exact_match']:>7.4f}"
            f" {each['exact_match']:>8.4f} {each['training_seconds']:>7.1f} {each['training_processor_seconds']:>11.1f}"
        )
    scores = [each["exact_match"] for each in cells]
    print(f"exact match {min(scores):.4f} to {max(scores):.4f} over {len(scores)} cells", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--capabilities", nargs="+", default=["default", "avx2", OWN])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "main_job.json")
    options = parser.parse_args()
    weights = _fingerprint(options.model)
    report: dict[str, Any] = {
        **describe("torch", "transformers", "trl", "peft", "accelerate"),
        "model": options.model,
        "weights": weights,
        "at_once": options.at_once,
        "cells": [],
    }
    if options.out.exists():
        before = json.loads(options.out.read_text())
        if (before["model"], before["weights"]) == (options.model, weights):
            report = before
    known = {(each["seed"], each["threads"], each["capability"]) for each in report["cells"]}
    asked = [(s, t, c) for c in options.capabilities for t in options.threads for s in options.seeds]
    todo = [one for one in asked if one not in known]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(options.at_once) as pool:
        for done in concurrent.futures.as_completed([pool.submit(cell, *one, options.model) for one in todo]):
            report["cells"].append(done.result())
            report["cells"].sort(key=partial(_place, asked))
            options.out.write_text(json.dumps(report, indent=2) + "\n")
            show([done.result()])
    show(report["cells"])


def _place(asked: list[tuple[int, int, str]], each: dict[str, Any]) -> int:
    """Where a cell stands in the report: those of an earlier call that were not asked for now come first."""
    cell = (each["seed"], each["threads"], each["capability"])
    return asked.index(cell) if cell in asked else -1


def _fingerprint(model: str) -> str:
    """Which base it is: the first digits of the SHA-256 of the bundled weights."""
    import hashlib

    import loraloop

    assets = Path(loraloop.__file__).parent / "model" / "assets" / "tiny"
    return hashlib.sha256((assets / "model.safetensors").read_bytes()).hexdigest()[:12]


if __name__ == "__main__":
    main()
