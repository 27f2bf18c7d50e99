"""How often the trigger's rules fire in a week, for nothing and for a reason, by the code that serves.

    python benchmarks/trigger.py [--weeks 2000] [--seed 2026] [--out benchmarks/results/trigger.json]

12 rated sessions every 4 hours for 7 days, the rule asked at every tick, at true mean ratings from fine to poor; the
threshold is 3.8 stars. Intervals are Wilson's, 95%.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe

from canary import wilson
from loraloop.simulation.users import Answers, Quality, SimulatedUsers, Visits, chances
from loraloop.trigger.plain import Plain
from loraloop.trigger.sequential import Sequential

HOURS, TICKS, SESSIONS = 4, 42, 12
CHUNK = 500
MEANS = (4.40, 4.10, 3.90, 3.80, 3.60, 3.45, 3.00)
USERS = {
    "independent": SimulatedUsers(sessions=SESSIONS),
    "conversations of 4, ICC 0.3": SimulatedUsers(sessions=SESSIONS, talk=4, talk_icc=0.3),
    "30 raters, ICC 0.1": SimulatedUsers(sessions=SESSIONS, raters=30, rater_icc=0.1),
    "6 raters, ICC 0.1": SimulatedUsers(sessions=SESSIONS, raters=6, rater_icc=0.1),
    "drift of -0.3 around the mean": SimulatedUsers(sessions=SESSIONS, drift=-0.3),
}


def opinions(visits: Visits, answers: Answers, most: int | None) -> np.ndarray:
    """Runs x sessions: the stars of a conversation's first session, for a person's first ``most``; else NaN."""
    runs = len(visits.talk)
    first = np.pad(np.diff(visits.talk, axis=2) > 0, ((0, 0), (0, 0), (1, 0)), constant_values=True).reshape(runs, -1)
    kept = np.where(first, answers.stars.reshape(runs, -1), np.nan)
    return kept if most is None else np.where(earlier(visits.rater.reshape(runs, -1), first) < most, kept, np.nan)


def earlier(rater: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How many opinions each person had before."""
    order = np.argsort(rater, axis=1, kind="stable")
    sorted_rater = np.take_along_axis(rater, order, 1)
    before = np.cumsum(np.take_along_axis(counts, order, 1), axis=1) - np.take_along_axis(counts, order, 1)
    first = np.pad(np.diff(sorted_rater, axis=1) != 0, ((0, 0), (1, 0)), constant_values=True)
    begins = np.maximum.accumulate(np.where(first, before, 0), axis=1)
    found = np.empty_like(before)
    np.put_along_axis(found, order, before - begins, 1)
    return found


def sequential(rule: Sequential, visits: Visits, answers: Answers) -> np.ndarray:
    stars = opinions(visits, answers, rule.per_rater)
    rater = visits.rater.reshape(len(stars), -1)
    until = range(SESSIONS, stars.shape[1] + 1, SESSIONS)
    enough = np.cumsum(~np.isnan(stars), axis=1) >= rule.min_ratings
    fires = np.stack([rule.fires(stars[:, :end], rater[:, :end]) for end in until], axis=1)
    return fires & enough[:, SESSIONS - 1 :: SESSIONS]


def plain(rule: Plain, answers: Answers) -> np.ndarray:
    stars = answers.stars.reshape(len(answers.stars), -1)
    added = np.pad(np.cumsum(stars, axis=1, dtype=float), ((0, 0), (1, 0)))
    until = np.arange(1, TICKS + 1) * SESSIONS
    since = np.maximum(until - rule.window, 0)
    return ((added[:, until] - added[:, since]) / (until - since) < rule.threshold) & (
        until - since >= rule.min_ratings
    )


def summary(fires: np.ndarray) -> dict[str, Any]:
    fired = fires.any(axis=1)
    hours = HOURS * (fires.argmax(axis=1)[fired] + 1)
    share = {"share": round(float(fired.mean()), 4), "interval": wilson(int(fired.sum()), len(fired))}
    return {**share, "median_hours": float(np.median(hours)) if fired.any() else None}


def cell(users: SimulatedUsers, mean: float, weeks: int, rng: np.random.Generator) -> dict[str, Any]:
    quality, rules = Quality(success=0.95, stars=mean - users.drift / 2), (Sequential(), Plain())
    found: dict[str, list[np.ndarray]] = {"sequential": [], "plain": []}
    for begin in range(0, weeks, CHUNK):
        visits = users.visit(min(CHUNK, weeks - begin), TICKS, rng)
        answers = users.answer(visits, quality, quality, np.zeros(visits.mood.shape, dtype=bool))
        found["sequential"].append(sequential(rules[0], visits, answers))
        found["plain"].append(plain(rules[1], answers))
    return {name: summary(np.concatenate(parts)) for name, parts in found.items()}


def rerated(rng: np.random.Generator, runs: int = 500, ticks: int = 80, talks: int = 40, times: int = 41) -> Any:
    """Ratings whose mean is exactly the threshold, in conversations that are rated again until the next tick.

    The rule is asked after the first rating of each tick's conversations. It fires for nothing; how often, where a
    conversation's opinion is its first rating, and where it moves to the mean of all.
    """
    stars = 1.0 + rng.choice(5, size=(runs, ticks, talks, times), p=chances(Sequential().threshold)).astype(np.float32)
    first, mean = stars[..., 0], stars.mean(axis=-1)
    people = np.broadcast_to(np.arange(ticks * talks), (runs, ticks * talks))
    fired = {"first": np.zeros(runs, bool), "mean": np.zeros(runs, bool)}
    for tick in range(1, ticks + 1):
        moved = np.concatenate([mean[:, : tick - 1], first[:, tick - 1 : tick]], axis=1)
        for name, seen in (("first", first[:, :tick]), ("mean", moved)):
            fired[name] |= Sequential().fires(seen.reshape(runs, -1), people[:, : tick * talks])
    return {
        name: {"share": float(each.mean()), "interval": wilson(int(each.sum()), runs)} for name, each in fired.items()
    }


def show(row: dict[str, Any]) -> str:
    low, high = row["interval"]
    hours = "-" if row["median_hours"] is None else f"{row['median_hours']:.0f}"
    return f"{100 * row['share']:5.1f} [{100 * low:4.1f}, {100 * high:5.1f}] {hours:>6}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trigger.json")
    arguments = parser.parse_args()
    began, cells = time.perf_counter(), []
    rng = np.random.default_rng(arguments.seed)
    for people, users in USERS.items():
        print(f"\n{people}\n{'mean':>6} {'sd':>6}   sequential: fired %    hours  plain: fired %        hours")
        for mean in MEANS:
            stars = np.arange(1, 6)
            sd = float(np.sqrt(chances(mean) @ stars**2 - mean**2))
            rules = cell(users, mean, arguments.weeks, rng)
            cells.append({"people": people, "mean": mean, "sd": round(sd, 3), **rules})
            print(f"{mean:6.2f} {sd:6.2f}   {show(rules['sequential'])}  {show(rules['plain'])}", flush=True)
    again = rerated(rng)
    print(f"\nrated 41 times: {again}")
    report = {
        **describe("numpy", "scipy"),
        "weeks": arguments.weeks,
        "seed": arguments.seed,
        "seconds": round(time.perf_counter() - began, 1),
        "cells": cells,
        "rerated": again,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
