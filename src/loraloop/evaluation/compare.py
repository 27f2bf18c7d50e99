"""Two scores side by side: differences per slice, and the answers to the same prompts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loraloop.core.metrics import exact
from loraloop.records import Generation, Score

RESAMPLES = 10_000
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of ``a`` and ``b``; ``change`` is b - a.

    Attributes:
        slice: The task, or empty for all rows.
        errors: Standard errors of ``a`` and ``b``.
        interval: 95% interval of ``change`` by paired bootstrap; only for exact match and task accuracy, and only
            when both scores are over the same rows.
    """

    slice: str
    metric: str
    a: float
    b: float
    errors: tuple[float | None, float | None] = (None, None)
    interval: tuple[float, float] | None = None

    @property
    def change(self) -> float:
        """How much larger the metric is in ``b``."""
        return self.b - self.a


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to the same prompt."""

    task: str
    prompt: str
    expected: str
    a: str
    b: str
    a_correct: bool
    b_correct: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """Differences (all rows first, then by task) and the answers to the prompts that both scores hold.

    Attributes:
        same_rows: Whether both scores are over exactly the same rows; otherwise the differences mix models and data.
    """

    differences: tuple[Difference, ...]
    pairs: tuple[Pair, ...]
    same_rows: bool


def compare(a: Score, b: Score, seed: int = 0) -> Comparison:
    """Compare two scores, ``a`` the reference."""
    pairs = _pairs(a.generations, b.generations)
    same = len(pairs) == a.rows == b.rows
    rng = np.random.default_rng(seed)
    slices: dict[str, tuple[Score, Score]] = {"": (a, b)}
    slices |= {task: (a.slices[task], b.slices[task]) for task in sorted(a.slices.keys() & b.slices.keys())}
    differences = []
    for task, (first, second) in slices.items():
        gains = _gains([pair for pair in pairs if task in ("", pair.task)]) if same else {}
        for metric in (name for name in first.values if name in second.values):
            interval = bootstrap(gains[metric], rng) if metric in gains else None
            errors = first.errors.get(metric), second.errors.get(metric)
            differences.append(Difference(task, metric, first[metric], second[metric], errors, interval))
    return Comparison(tuple(differences), pairs, same)


def bootstrap(gains: Sequence[int], rng: np.random.Generator) -> tuple[float, float]:
    """95% percentile interval of the mean of paired ``gains`` of -1, 0 or 1 (Efron and Tibshirani 1993, chapter 13).

    Drawing rows with replacement and counting losses, ties and wins is one multinomial draw. The interval has no
    width where all gains are equal, however few rows there are.
    """
    counts = np.bincount(np.asarray(gains) + 1, minlength=3)
    draws = rng.multinomial(len(gains), counts / len(gains), size=RESAMPLES)
    means = (draws[:, 2] - draws[:, 0]) / len(gains)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _pairs(first: Sequence[Generation], second: Sequence[Generation]) -> tuple[Pair, ...]:
    waiting: dict[tuple[str, str, str], list[Generation]] = defaultdict(list)
    for each in reversed(second):
        waiting[each.task, each.prompt, each.expected].append(each)
    pairs = []
    for one in first:
        if others := waiting[one.task, one.prompt, one.expected]:
            other = others.pop()
            pairs.append(Pair(one.task, one.prompt, one.expected, one.answer, other.answer, one.correct, other.correct))
    return tuple(pairs)


def _gains(pairs: Sequence[Pair]) -> dict[str, list[int]]:
    return {
        "exact_match": [exact(pair.b, pair.expected) - exact(pair.a, pair.expected) for pair in pairs],
        "task_accuracy": [pair.b_correct - pair.a_correct for pair in pairs],
    }
