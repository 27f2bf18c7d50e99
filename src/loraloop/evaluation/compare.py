"""Two scores side by side: differences per slice, and the answers to the same prompts."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from loraloop.core import paired
from loraloop.core.metrics import exact
from loraloop.records import Score

RESAMPLES = 10_000
LEVEL = 0.95
_ALONE = ((-1, 1), (0, 1), (1, 1))
"""Gain and turns of a row that stands alone; all three are drawn from, so that such rows keep their interval."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One metric of ``a`` and ``b``; ``change`` is b - a.

    Attributes:
        slice: The task, or empty for all rows.
        errors: Standard errors of ``a`` and ``b``.
        interval: 95% interval of ``change`` by paired bootstrap over conversations; only for exact match and task
            accuracy, only when both scores are over the same rows, and not of a single conversation.
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
    """Two answers to the same prompt; the turns of one conversation share ``conversation``."""

    task: str
    prompt: str
    expected: str
    a: str
    b: str
    a_correct: bool
    b_correct: bool
    conversation: str = ""


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
    pairs = tuple(
        Pair(one.task, one.prompt, one.expected, one.answer, other.answer, one.correct, other.correct, one.conversation)
        for one, other in paired.pairs(a, b)
    )
    same = paired.same_rows(a, b) is not None
    rng = np.random.default_rng(seed)
    slices: dict[str, tuple[Score, Score]] = {"": (a, b)}
    slices |= {task: (a.slices[task], b.slices[task]) for task in sorted(a.slices.keys() & b.slices.keys())}
    differences = []
    for task, (first, second) in slices.items():
        rows = [pair for pair in pairs if task in ("", pair.task)] if same else []
        gains, together = _gains(rows), [pair.conversation for pair in rows]
        for metric in (name for name in first.values if name in second.values):
            interval = bootstrap(gains[metric], together, rng) if same and metric in gains else None
            errors = first.errors.get(metric), second.errors.get(metric)
            differences.append(Difference(task, metric, first[metric], second[metric], errors, interval))
    return Comparison(tuple(differences), pairs, same)


def bootstrap(
    gains: Sequence[int], conversations: Sequence[str], rng: np.random.Generator
) -> tuple[float, float] | None:
    """95% percentile interval of the mean of paired ``gains`` of -1, 0 or 1 (Efron and Tibshirani 1993, chapter 13).

    The turns of a conversation are not independent: conversations are drawn with replacement rather than rows, each
    with all its turns (Davison and Hinkley 1997, Bootstrap Methods, section 3.8). A row that stands alone is drawn
    alone. To draw and to count how often each pair of gain and turns is drawn is one multinomial draw. The interval has
    no width where all gains are equal, however few rows there are.

    Args:
        gains: By row.
        conversations: What the rows of one conversation share; empty for a row that stands alone.
        rng: Draws.

    Returns:
        The interval; ``None`` where all rows are turns of one conversation, which does not tell how others differ.
    """
    together: dict[str | int, list[int]] = defaultdict(list)
    for place, (gain, conversation) in enumerate(zip(gains, conversations, strict=True)):
        together[conversation or place].append(gain)
    if len(together) < 2 and any(conversations):
        return None
    counts = Counter((sum(each), len(each)) for each in together.values())
    kinds = sorted({*_ALONE, *counts})
    weights = np.array([counts[kind] for kind in kinds])
    draws = rng.multinomial(len(together), weights / len(together), size=RESAMPLES)
    gained, turns = np.array(kinds).T
    low, high = np.quantile(draws @ gained / (draws @ turns), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _gains(pairs: Sequence[Pair]) -> dict[str, list[int]]:
    return {
        "exact_match": [exact(pair.b, pair.expected) - exact(pair.a, pair.expected) for pair in pairs],
        "task_accuracy": [pair.b_correct - pair.a_correct for pair in pairs],
    }
