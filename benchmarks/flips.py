"""Rows of 32 coin flips per second: the package's way beside two plain ones, in one process.

Every contender makes the same thing, a list of strings of 32 letters. Run it as ``python benchmarks/flips.py``;
it writes ``benchmarks/results/flips.json``.
"""

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import describe

from loraloop.source.flips import Flips, draw, spell

RESULT = Path(__file__).parent / "results" / "flips.json"


def choice_per_row(rows: int) -> list[str]:
    return ["".join(np.random.choice(["H", "T"], 32)) for _ in range(rows)]


def choice_at_once(rows: int) -> list[str]:
    return ["".join(row) for row in np.random.choice(["H", "T"], (rows, 32))]


def fair(rows: int) -> list[str]:
    return spell(draw(np.random.default_rng(0), rows, 32))


def biased(rows: int) -> list[str]:
    return spell(draw(np.random.default_rng(0), rows, 32, 0.3))


def whole_source(rows: int) -> list[str]:
    return [example.input for example in Flips(runs=rows // 32).collect(None).examples]


BASELINE = "numpy.random.choice + join, row by row"
CONTENDERS: dict[str, Callable[[int], list[str]]] = {
    BASELINE: choice_per_row,
    "numpy.random.choice + join, one draw": choice_at_once,
    "loraloop, p=0.5 (unpackbits)": fair,
    "loraloop, p=0.3 (threshold)": biased,
    "loraloop, whole examples with counts": whole_source,
}


def seconds(make: Callable[[int], list[str]], rows: int) -> float:
    make(rows)  # unmeasured: whoever runs first after a large contender would pay for its freed memory
    # CPU time: on a busy machine wall time counts the neighbours, and more so for the slower contender.
    start = time.thread_time()
    made = make(rows)
    passed = time.thread_time() - start
    assert len(made) == rows
    assert {len(row) for row in made} == {32}
    return passed


def measure(rows: int, rounds: int) -> dict[str, dict[str, float]]:
    """Speed in the median of ``rounds`` rounds, in each of which every contender runs once."""
    timed = [{name: seconds(make, rows) for name, make in CONTENDERS.items()} for _ in range(rounds)]
    median = {name: statistics.median(one[name] for one in timed) for name in CONTENDERS}
    return {
        name: {"rows_per_second": round(rows / typical), "times_baseline": round(median[BASELINE] / typical, 1)}
        for name, typical in median.items()
    }


def main() -> None:
    results = {rows: measure(rows, rounds) for rows, rounds in ((3_200, 25), (32_000, 8))}
    for rows, speeds in results.items():
        print(f"{rows:,} rows of 32 flips")
        for name, speed in speeds.items():
            print(f"  {name:40} {speed['rows_per_second']:12,} rows/s  {speed['times_baseline']:7.1f}x")
    report = {
        **describe("numpy"),
        "flips_per_row": 32,
        "statistic": "median CPU time over rounds; in each, every contender runs once unmeasured and once measured",
        "rows": results,
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
