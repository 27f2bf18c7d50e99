"""How often the gate passes an adapter that is no better, and how often one that is: simulated held-out rows.

    python benchmarks/gate.py [--draws 1000] [--seed 2026] [--out benchmarks/results/gate.json]

Each draw is a reference, right in 70% of its answers, and a candidate on the same rows, judged by the gate itself
against that one reference: by the old rule (a margin on the point estimate, ``gate.max_p=1``) and by the rule in force
(margin and paired test). Intervals are Wilson's, 95%. `errors` says how the two err: `independent` of each other, or on
`shared` rows, where each row has a difficulty of its own (beta, one pseudo-observation).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe
from scipy.stats import binomtest

from loraloop.gate.gate import Gate
from loraloop.records import Generation, Score

ROWS = (20, 100, 200, 640)
GAINS = (0.0, 0.02, 0.05, 0.10, 0.20)
REFERENCE = 0.7
"""The reference's task accuracy."""
ERRORS = ("independent", "shared")


def score(right: np.ndarray) -> Score:
    """A score with these right answers."""
    found = tuple(Generation("t", str(place), "", "", each) for place, each in enumerate(right.tolist()))
    return Score(rows=len(found), values={"task_accuracy": float(right.mean())}, generations=found)


def draw(errors: str, rows: int, gain: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Right answers of a candidate and of a reference that it is better than by ``gain``, in truth."""
    ease = rng.beta(REFERENCE, 1 - REFERENCE, rows) if errors == "shared" else np.full(rows, REFERENCE)
    better = ease + gain * (1 - ease) / (1 - REFERENCE)
    return rng.random(rows) < better, rng.random(rows) < ease


def cell(errors: str, rows: int, gain: float, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    """How often each rule passes the candidate."""
    rules = {"old": Gate(must_beat=("base",), max_p=1), "new": Gate(against=("base",))}
    passed = dict.fromkeys(rules, 0)
    for _ in range(draws):
        candidate, reference = map(score, draw(errors, rows, gain, rng))
        for name, gate in rules.items():
            passed[name] += gate.decide(candidate, reference).passed
    made: dict[str, Any] = {"errors": errors, "rows": rows, "gain": gain}
    for name, count in passed.items():
        interval = binomtest(count, draws).proportion_ci(method="wilson")
        made[name] = {"passed": count / draws, "interval": [round(interval.low, 4), round(interval.high, 4)]}
    return made


def show(cells: list[dict[str, Any]], errors: str) -> None:
    """Print one table: old and new rule."""
    print(f"\n{errors} errors: passed by the old rule / by the new one")
    print("| rows | " + " | ".join("equal" if not gain else f"+{gain:.0%}" for gain in GAINS) + " |")
    print("| ---: |" + " ---: |" * len(GAINS))
    for rows in ROWS:
        found = [each for each in cells if (each["errors"], each["rows"]) == (errors, rows)]
        print(f"| {rows} | " + " | ".join(f"{e['old']['passed']:.1%} / {e['new']['passed']:.1%}" for e in found) + " |")


def main() -> None:
    """Simulate every cell, print the tables and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rng, began, cells = np.random.default_rng(given.seed), time.perf_counter(), []
    for errors in ERRORS:
        cells += [cell(errors, rows, gain, given.draws, rng) for rows in ROWS for gain in GAINS]
        show(cells, errors)
    if given.out:
        facts = {"draws": given.draws, "seed": given.seed, "seconds": round(time.perf_counter() - began, 1)}
        text = json.dumps({**describe("numpy", "scipy"), **facts, "cells": cells}, indent=1)
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
