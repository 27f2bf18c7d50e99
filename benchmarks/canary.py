"""How often the canary's rules are wrong, and what that costs: simulated rollouts, decided by the code that serves.

    python benchmarks/canary.py [--rollouts 2000] [--seed 2026] [--out benchmarks/results/canary.json]

67 sessions every 4 hours, 15% of the conversations to the canary, a decision at every tick, at most 21 days. Every cell
is a quality of the stable version, one of the candidate, and what people are like. Intervals are Wilson's, 95%.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from loraloop.canary.plain import Plain
from loraloop.canary.sequential import ACTIONS, Sequential
from loraloop.canary.tally import Arm, Sample
from loraloop.core.durations import span
from loraloop.simulation.users import Answers, Quality, SimulatedUsers, Visits

EVERY = timedelta(hours=4)
TICKS = 126
CHUNK = 200
HEADER = f"{'':34} promoted %           rolled back %        inconclusive %       ticks  sessions, p95"
HIGH, LOW = Quality(success=0.985, stars=4.25), Quality(success=0.93, stars=3.70)
LEFT = "as good, 5% left"
"""As good as the stable version, but that clients leave one in twenty of its sessions before they end: the margin."""
CANDIDATES = {
    "high": {
        "broken": Quality(success=0.50, stars=2.00),
        "worse": Quality(success=0.93, stars=3.88),
        "at the success margin": Quality(success=0.935, stars=4.25),
        "at the star margin": Quality(success=0.985, stars=4.00),
        LEFT: HIGH,
        "same": HIGH,
        "better": Quality(success=0.995, stars=4.50),
    },
    "low": {
        "broken": Quality(success=0.50, stars=2.00),
        "worse": Quality(success=0.86, stars=3.30),
        "at the success margin": Quality(success=0.88, stars=3.70),
        "at the star margin": Quality(success=0.93, stars=3.45),
        LEFT: LOW,
        "same": LOW,
        "better": Quality(success=0.96, stars=3.98),
    },
}
USERS = {
    "independent": SimulatedUsers(),
    "ICC 0.3": SimulatedUsers(talk=4, talk_icc=0.3),
    "drift": SimulatedUsers(drift=-0.6),
    "20% hostile": SimulatedUsers(hostile=0.2),
    "18% rated": SimulatedUsers(rated=0.18),
}


@dataclass(frozen=True)
class Ticks:
    """Both arms after every tick (runs x ticks), and the canary's latest sessions."""

    stable: Arm
    canary: Arm
    ended: np.ndarray
    success: np.ndarray
    stars: np.ndarray


def assign(visits: Visits, share: float, rng: np.random.Generator) -> np.ndarray:
    """Which sessions the canary answers: all of a conversation or none."""
    return np.take_along_axis(rng.random(visits.talk.shape, dtype=np.float32) < share, visits.talk, -1)


def tally(visits: Visits, answers: Answers, canary: np.ndarray, left: np.ndarray, window: int) -> Ticks:
    runs, ticks, size = canary.shape
    place = (np.arange(runs * ticks).reshape(runs, ticks, 1) * size + visits.talk).ravel()

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(place, values.ravel(), runs * ticks * size).reshape(runs, ticks, size)

    rated = ~np.isnan(answers.stars) & ~left
    side = sums(canary) > 0
    length, count, ended = sums(np.ones(canary.shape)), sums(rated), sums(~left)
    means = {
        "completed": (ended / np.maximum(length, 1), length > 0),
        "success": (sums(answers.success & ~left) / np.maximum(ended, 1), ended > 0),
        "stars": (sums(np.where(rated, answers.stars, 0)) / np.maximum(count, 1), count > 0),
    }

    def arm(mine: np.ndarray) -> Arm:
        samples = {}
        for name, (values, there) in means.items():
            kept = np.where(there & mine, values, 0.0)
            figures = ((there & mine), kept, kept**2)
            samples[name] = Sample(*(each.sum(axis=2, dtype=float).cumsum(axis=1) for each in figures))
        sizes = (length * mine, (length > 0) & mine)
        return Arm(*(each.sum(axis=2, dtype=float).cumsum(axis=1) for each in sizes), **samples)

    return Ticks(arm(~side), arm(side), *latest(answers, canary, left, window))


def latest(answers: Answers, canary: np.ndarray, left: np.ndarray, window: int) -> list[np.ndarray]:
    """Of the canary's last ``window`` sessions after every tick: how many ended, their success rate, mean rating."""
    runs = len(canary)
    mine = canary.reshape(runs, -1)
    first = np.argsort(~mine, axis=1, kind="stable")
    until = canary.sum(axis=2).cumsum(axis=1)
    since = np.maximum(until - window, 0)

    def within(values: np.ndarray) -> np.ndarray:
        added = np.cumsum(np.take_along_axis(values.reshape(runs, -1) * mine, first, 1), axis=1)
        added = np.pad(added, ((0, 0), (1, 0)))
        return np.take_along_axis(added, until, 1) - np.take_along_axis(added, since, 1)

    rated = ~np.isnan(answers.stars) & ~left
    ended = within(1.0 - left)
    with np.errstate(invalid="ignore"):
        stars = within(np.where(rated, answers.stars, 0)) / within(rated.astype(float))
        return [ended, within((answers.success & ~left).astype(float)) / ended, stars]


def at(arm: Arm, tick: int) -> Arm:
    samples = (Sample(*(each[:, tick] for each in sample)) for sample in (arm.completed, arm.success, arm.stars))
    return Arm(arm.sessions[:, tick], arm.conversations[:, tick], *samples)


def sequential(rule: Sequential, ticks: Ticks) -> np.ndarray:
    judged = [rule.judge(at(ticks.stable, t), at(ticks.canary, t), (t + 1) * EVERY).action for t in range(TICKS)]
    return np.stack(judged, axis=1)


def plain(rule: Plain, ticks: Ticks) -> np.ndarray:
    ready = (ticks.ended >= rule.min_sessions) & ~np.isnan(ticks.stars)
    healthy = rule.healthy(ticks.success, ticks.stars)
    capped = np.arange(1, TICKS + 1) * EVERY >= span(rule.max_age)
    chosen = [ACTIONS.index(action) for action in ("promote", "rollback", "stop")]
    return np.select([ready & healthy, ready, capped], chosen, ACTIONS.index("wait"))


def ends(actions: np.ndarray, ticks: Ticks) -> list[np.ndarray]:
    """How every rollout ended, after how many ticks, and how many sessions the canary had answered by then."""
    over = actions != ACTIONS.index("wait")
    tick = np.where(over.any(axis=1), over.argmax(axis=1), actions.shape[1] - 1)
    rows = np.arange(len(actions))
    return [actions[rows, tick], tick + 1, ticks.canary.sessions[rows, tick]]


def wilson(count: int, total: int) -> list[float]:
    from scipy.stats import binomtest

    found = binomtest(count, total).proportion_ci(method="wilson")
    return [round(float(found.low), 4), round(float(found.high), 4)]


def summary(found: list[np.ndarray]) -> dict[str, Any]:
    action, ticks, exposure = found
    row: dict[str, Any] = {}
    for name, kinds in (("promoted", ["promote"]), ("rolled_back", ["rollback"]), ("inconclusive", ["stop", "wait"])):
        count = int(np.isin(action, [ACTIONS.index(kind) for kind in kinds]).sum())
        row[name] = {"share": round(count / len(action), 4), "interval": wilson(count, len(action))}
    row["median_ticks"] = float(np.median(ticks))
    row["exposure"] = {"mean": round(float(exposure.mean()), 1), "p95": float(np.quantile(exposure, 0.95))}
    return row


def cell(
    users: SimulatedUsers, stable: Quality, candidate: Quality, leave: float, rollouts: int, rng: np.random.Generator
) -> dict[str, Any]:
    rule, seed_rule = Sequential(), Plain()
    found: dict[str, list[list[np.ndarray]]] = {"sequential": [], "plain": []}
    for begin in range(0, rollouts, CHUNK):
        runs = min(CHUNK, rollouts - begin)
        visits = users.visit(runs, TICKS, rng)
        canary = assign(visits, rule.share, rng)
        left = canary & (rng.random(canary.shape, dtype=np.float32) < leave)
        ticks = tally(visits, users.answer(visits, stable, candidate, canary), canary, left, seed_rule.window)
        found["sequential"].append(ends(sequential(rule, ticks), ticks))
        found["plain"].append(ends(plain(seed_rule, ticks), ticks))
    return {name: summary([np.concatenate(each) for each in zip(*parts, strict=True)]) for name, parts in found.items()}


def show(row: dict[str, Any]) -> str:
    def share(name: str) -> str:
        low, high = row[name]["interval"]
        return f"{100 * row[name]['share']:5.1f} [{100 * low:4.1f}, {100 * high:5.1f}]"

    exposure = f"{row['exposure']['mean']:6.0f} {row['exposure']['p95']:6.0f}"
    return "  ".join(
        [*map(share, ("promoted", "rolled_back", "inconclusive")), f"{row['median_ticks']:4.0f}", exposure]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--users", nargs="+", default=list(USERS), choices=USERS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "canary.json")
    arguments = parser.parse_args()
    began, cells = time.perf_counter(), []
    rng = np.random.default_rng(arguments.seed)
    for people in arguments.users:
        for base, stable in (("high", HIGH), ("low", LOW)):
            print(f"\n{people}, {base} base ({stable.success:g}, {stable.stars:g} stars)")
            print(HEADER)
            for name, candidate in CANDIDATES[base].items():
                leave = 0.05 if name == LEFT else 0.0
                rules = cell(USERS[people], stable, candidate, leave, arguments.rollouts, rng)
                cells.append({"people": people, "base": base, "candidate": name, **rules})
                for rule, row in rules.items():
                    print(f"{name:22} {rule:10}  {show(row)}", flush=True)
    report = {
        **describe("numpy", "scipy"),
        "rollouts": arguments.rollouts,
        "seed": arguments.seed,
        "seconds": round(time.perf_counter() - began, 1),
        "cells": cells,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
