"""The benchmarks decide thousands of simulated cases at once as the rules decide one."""

from __future__ import annotations

import importlib.util
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from loraloop.canary.plain import Plain as PlainCanary
from loraloop.canary.sequential import ACTIONS
from loraloop.canary.sequential import Sequential as SequentialCanary
from loraloop.records import Outcome, Rollout
from loraloop.simulation.users import Answers, Quality, SimulatedUsers, Visits
from loraloop.trigger.plain import Plain as PlainTrigger
from loraloop.trigger.sequential import Sequential as SequentialTrigger

FOLDER = Path(__file__).parents[2] / "benchmarks"
BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
EVERY = timedelta(hours=4)


@pytest.fixture
def benchmark(request, monkeypatch):
    """A benchmark's module."""
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(f"benchmark_{request.param}", FOLDER / f"{request.param}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def outcomes(
    visits: Visits, answers: Answers, canary: np.ndarray, run: int, left: np.ndarray | None = None
) -> list[Outcome]:
    """One run's sessions as the store would give them; nobody rates one that was ``left``."""
    gone = np.zeros(canary.shape, dtype=bool) if left is None else left
    _, ticks, size = canary.shape
    return [
        Outcome(
            session=f"s{tick}-{place}",
            time=(BEGAN + EVERY * (tick + (place + 0.5) / size)).isoformat(),
            conversation=f"t{tick}-{visits.talk[run, tick, place]}",
            rater=f"r{visits.rater[run, tick, place]}",
            answered=f"ocr@{2 if canary[run, tick, place] else 1}",
            rollout="r",
            success=None if gone[run, tick, place] else bool(answers.success[run, tick, place]),
            stars=int(stars)
            if np.isfinite(stars := answers.stars[run, tick, place]) and not gone[run, tick, place]
            else None,
        )
        for tick in range(ticks)
        for place in range(size)
    ]


@pytest.mark.parametrize("benchmark", ["canary"], indirect=True)
@pytest.mark.parametrize("candidate", [Quality(success=0.6, stars=2.5), Quality(success=0.985, stars=4.6)])
def test_rollouts(benchmark, candidate, monkeypatch):
    """At every tick of simulated rollouts, both of the benchmark's canaries say what the rules say."""
    ticks, runs, rng = 14, 3, np.random.default_rng(37)
    monkeypatch.setattr(benchmark, "TICKS", ticks)
    users = SimulatedUsers(talk=3, talk_icc=0.3, rated=0.6)
    visits = users.visit(runs, ticks, rng)
    canary = benchmark.assign(visits, 0.15, rng)
    answers = users.answer(visits, Quality(success=0.95, stars=4), candidate, canary)
    left = canary & (rng.random(canary.shape) < 0.2)
    found = benchmark.tally(visits, answers, canary, left, PlainCanary().window)
    at_once = {
        SequentialCanary(): benchmark.sequential(SequentialCanary(), found),
        PlainCanary(): benchmark.plain(PlainCanary(), found),
    }
    rollout = Rollout(id="r", role="v", model="m", stable=1, canary=2, share=0.15, began=BEGAN.isoformat())
    for rule, actions in at_once.items():
        for run in range(runs):
            rows = outcomes(visits, answers, canary, run, left)
            for tick in range(ticks):
                seen = rows[: (tick + 1) * users.sessions]
                ruling = rule.decide(rollout, seen, (BEGAN + (tick + 1) * EVERY).isoformat())
                assert ruling.action == ACTIONS[actions[run, tick]], (rule, run, tick)
        assert len(set(actions.ravel())) > 1


@pytest.mark.parametrize("benchmark", ["trigger"], indirect=True)
def test_weeks(benchmark):
    """At every tick of simulated weeks, both of the benchmark's triggers say what the rules say."""
    runs, ticks, rng = 3, benchmark.TICKS, np.random.default_rng(41)
    users = SimulatedUsers(sessions=benchmark.SESSIONS, talk=2, talk_icc=0.3, raters=8, rater_icc=0.1)
    visits, quality = users.visit(runs, ticks, rng), Quality(success=0.9, stars=3.6)
    nobody = np.zeros(visits.mood.shape, dtype=bool)
    answers = users.answer(visits, quality, quality, nobody)
    at_once = {
        SequentialTrigger(): benchmark.sequential(SequentialTrigger(), visits, answers),
        PlainTrigger(): benchmark.plain(PlainTrigger(), answers),
    }
    for rule, fires in at_once.items():
        for run in range(runs):
            rows = outcomes(visits, answers, nobody, run)
            for tick in range(2, ticks, 3):
                seen, now = rows[: (tick + 1) * users.sessions], BEGAN + (tick + 1) * EVERY
                decision = rule.decide(seen, BEGAN.isoformat(), now.isoformat())
                assert decision.passed == fires[run, tick], (rule, run, tick)
        assert len(set(fires.ravel())) == 2
