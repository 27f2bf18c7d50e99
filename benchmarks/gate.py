"""How often the gate passes an adapter that is no better, and how often one that is: simulated held-out rows.

    python benchmarks/gate.py [--draws 1000] [--seed 2026] [--out benchmarks/results/gate.json]

Each draw is a reference and a candidate on the same rows, judged by the gate itself against that one reference: by the
old rule (a margin on the point estimate, ``gate.max_p=1``) and by the rule in force (margin and paired test). Intervals
are Wilson's, 95%. `chance` says how the two err: `independent` of each other, or on `shared` rows, where each row has
a difficulty of its own (beta, one pseudo-observation). A row's loss is gamma distributed, and the gain is the
share by which the candidate's is lower.
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
CASES = (("task_accuracy", "independent"), ("task_accuracy", "shared"), ("loss", "independent"))
LOSS_DRAWS = 4
"""How many times fewer draws the loss gets, whose test takes longer."""


def score(metric: str, values: np.ndarray) -> Score:
    """A score of which each row has this value."""
    rows = enumerate(values.tolist())
    if metric == "loss":
        found = tuple(Generation("t", str(place), "", "", False, value) for place, value in rows)
    else:
        found = tuple(Generation("t", str(place), "", "", bool(value)) for place, value in rows)
    return Score(rows=len(found), values={metric: float(values.mean())}, generations=found)


def draw(metric: str, chance: str, rows: int, gain: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The rows' values of a candidate and of a reference that it is better than by ``gain``, in truth."""
    if metric == "loss":
        return (1 - gain) * rng.gamma(2, 0.5, rows), rng.gamma(2, 0.5, rows)
    ease = rng.beta(REFERENCE, 1 - REFERENCE, rows) if chance == "shared" else np.full(rows, REFERENCE)
    better = ease + gain * (1 - ease) / (1 - REFERENCE)
    return rng.random(rows) < better, rng.random(rows) < ease


def cell(metric: str, chance: str, rows: int, gain: float, draws: int, rng: np.random.Generator) -> dict[str, Any]:
    """How often each rule passes the candidate."""
    rules = {"old": Gate(metric=metric, against=("base",), max_p=1), "new": Gate(metric=metric, against=("base",))}
    passed = dict.fromkeys(rules, 0)
    for _ in range(draws):
        candidate, reference = (score(metric, values) for values in draw(metric, chance, rows, gain, rng))
        for name, gate in rules.items():
            passed[name] += gate.decide(candidate, reference).passed
    made: dict[str, Any] = {"metric": metric, "chance": chance, "rows": rows, "gain": gain, "draws": draws}
    for name, count in passed.items():
        interval = binomtest(count, draws).proportion_ci(method="wilson")
        made[name] = {"passed": count / draws, "interval": [round(interval.low, 4), round(interval.high, 4)]}
    return made


def show(cells: list[dict[str, Any]], metric: str, chance: str) -> None:
    """Print one table: old and new rule, in percent of the draws."""
    print(f"\n{metric}, {chance}: passed by the old rule / by the new one, %")
    print("| rows | " + " | ".join("equal" if not gain else f"+{gain:.0%}" for gain in GAINS) + " |")
    print("| ---: |" + " ---: |" * len(GAINS))
    for rows in ROWS:
        found = [each for each in cells if (each["metric"], each["chance"], each["rows"]) == (metric, chance, rows)]
        print(f"| {rows} | " + " | ".join(f"{e['old']['passed']:.1%} / {e['new']['passed']:.1%}" for e in found) + " |")


def main() -> None:
    """Simulate every cell, print the tables and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    rng, began, cells = np.random.default_rng(given.seed), time.perf_counter(), []
    for metric, chance in CASES:
        draws = given.draws // (LOSS_DRAWS if metric == "loss" else 1)
        cells += [cell(metric, chance, rows, gain, draws, rng) for rows in ROWS for gain in GAINS]
        show(cells, metric, chance)
    if given.out:
        facts = {"draws": given.draws, "seed": given.seed, "seconds": round(time.perf_counter() - began, 1)}
        text = json.dumps({**describe("numpy", "scipy"), **facts, "cells": cells}, indent=1)
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
