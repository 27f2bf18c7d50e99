"""Stage ``compare``: two runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError, DataError
from loraloop.stages import console

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
    names = [f"{run['name']} ({str(run['id'])[:8]})" for run in (first, second)]
    _parameters(first["params"], second["params"], names)
    _differences(comparison.differences, names)
    if not comparison.same_rows:
        print("The runs were scored on different rows: the differences mix models and data.")
    _answers(comparison.pairs, names)


def _score(tracker: Tracker, run: str) -> Score:
    from loraloop.evaluation import store

    folder = tracker.artifacts(run) / "evaluation" / "adapter"
    if not folder.is_dir():
        raise DataError(f"run {run} holds no evaluation of an adapter: it did not finish, or was made by another stage")
    return store.read(folder)


def _parameters(first: dict[str, str], second: dict[str, str], names: Sequence[str]) -> None:
    changed = [key for key in sorted(first.keys() | second.keys()) if first.get(key) != second.get(key)]
    if changed:
        rows = [[key, first.get(key, "-"), second.get(key, "-")] for key in changed]
        console.table("parameters that differ", ["parameter", *names], rows)


def _differences(differences: Sequence[Difference], names: Sequence[str]) -> None:
    rows = []
    for each in differences:
        interval = f"{each.interval[0]:+.3f} to {each.interval[1]:+.3f}" if each.interval else ""
        cells = [f"{each.a:.4f}", f"{each.b:.4f}", f"{each.change:+.4f}", interval]
        rows.append([each.slice or "all", each.metric, *cells])
    console.table("metrics", ["slice", "metric", *names, "change", "95% interval"], rows)


def _answers(pairs: Sequence[Pair], names: Sequence[str]) -> None:
    changed = [pair for pair in pairs if pair.a_correct != pair.b_correct]
    better = sum(pair.b_correct for pair in changed)
    print(f"answers: {len(pairs)} prompts in common, {better} right only in {names[1]}, "
          f"{len(changed) - better} right only in {names[0]}")  # fmt: skip
    shown = (changed or list(pairs))[:SHOWN]
    if shown:
        rows = [[pair.prompt.strip(), pair.expected, pair.a, pair.b] for pair in shown]
        console.table("side by side", ["prompt", "expected", *names], rows)
