"""Stage ``compare``: two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from loraloop.evaluation.compare import Difference, Pair
    from loraloop.protocols import Tracker
    from loraloop.records import Job, Score

SHOWN = 5


def compare(job: Job, runs: Sequence[str], tracker: Tracker) -> None:
    """Print what differs between two runs: parameters, metrics per slice, and answers to the same prompts."""
    from loraloop.evaluation.compare import compare as compare_scores

    if not isinstance(runs, list) or len(runs) != 2:
        raise ConfigError(f"runs={runs}: exactly two runs are compared: write runs=[A,B] with ids or unique names")
    first, second = (tracker.read(str(run)) for run in runs)
    comparison = compare_scores(_score(tracker, str(runs[0])), _score(tracker, str(runs[1])), job.seed)
    console.facts(
        "runs", {letter: f"{run['name']} ({run['id']})" for letter, run in zip("AB", (first, second), strict=True)}
    )
    _parameters(first["params"], second["params"])
    _differences(comparison.differences)
    if not comparison.same_rows:
        print("The runs were scored on different rows: the differences mix models and data.")
    _answers(comparison.pairs)


def _score(tracker: Tracker, run: str) -> Score:
    from loraloop.evaluation import store

    folder = tracker.artifacts(run) / "evaluation" / "adapter"
    if not folder.is_dir():
        raise DataError(f"run {run} holds no evaluation of an adapter: it did not finish, or was made by another stage")
    return store.read(folder)


def _parameters(first: dict[str, str], second: dict[str, str]) -> None:
    changed = [key for key in sorted(first.keys() | second.keys()) if first.get(key) != second.get(key)]
    if changed:
        rows = [[key, first.get(key, "-"), second.get(key, "-")] for key in changed]
        console.table("parameters that differ", ["parameter", "A", "B"], rows, numbers=False)


def _differences(differences: Sequence[Difference]) -> None:
    rows = []
    several = len({each.slice for each in differences}) > 2  # the only task repeats the whole
    for each in differences if several else [each for each in differences if not each.slice]:
        interval = f"{each.interval[0]:+.3f}, {each.interval[1]:+.3f}" if each.interval else ""
        a, b = (
            console.value_with_error(value, error) for value, error in zip((each.a, each.b), each.errors, strict=True)
        )
        cells = [a, b, f"{each.change:+.3f}", interval]
        rows.append([each.slice or "all", each.metric, *cells])
    console.table("metrics", ["slice", "metric", "A", "B", "change", "95% interval"], rows)


def _answers(pairs: Sequence[Pair]) -> None:
    changed = [pair for pair in pairs if pair.a_correct != pair.b_correct]
    better = sum(pair.b_correct for pair in changed)
    print(f"answers: {len(pairs)} prompts in common, {len(changed) - better} right only in A, {better} right only in B")
    shown = (changed or list(pairs))[:SHOWN]
    if shown:
        rows = [[pair.prompt.strip(), pair.expected, pair.a, pair.b] for pair in shown]
        console.table("side by side", ["prompt", "expected", "A", "B"], rows, numbers=False)
