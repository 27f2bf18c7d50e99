"""What a run prints: its data, its estimate, its scores, its cost and its verdict."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.workflows.rows import unmeasured

if TYPE_CHECKING:
    from loraloop.records import Change, Dataset, Estimate, General, Score, Training
    from loraloop.workflows.multirun.results import Result
    from loraloop.workflows.promotion import Promotion


SHOWN = 3
ASKED, ANSWERED = 26, 18
"""Characters of a prompt and of an answer in the table, which is 80 wide."""
HEADER = re.compile(r"<\|[^|]*\|>\w*")
"""A line of a chat template that only says who speaks."""
BY_TASK = ("task_accuracy", "tool_call_accuracy", "loss")
"""What the table shows of each task."""


def data(rows: Dataset) -> None:
    """Print how many rows there are and of which tasks."""
    tasks = Counter(row.example.task or "(none)" for row in (*rows.train, *rows.validation))
    console.facts(
        "data",
        {
            "rows": f"{len(rows.train)} to train on, {len(rows.validation)} held out{unmeasured(rows)}",
            "tasks": ", ".join(f"{task} {count}" for task, count in sorted(tasks.items())),
            "fingerprint": rows.fingerprint[:16],
        },
    )


def estimate(expected: Estimate) -> None:
    """Print what a run is expected to take."""
    share = f"{expected.trainable_share:.2%} of {expected.total_parameters:,}"
    console.facts(
        "estimate",
        {
            "trainable": f"{expected.trainable_parameters:,} parameters, {share}",
            "steps": f"{expected.steps} over {expected.tokens:,} tokens",
            "memory": console.size(expected.memory_bytes) + _each(expected.devices),
            "training time": f"{console.duration(expected.seconds)} to {console.duration(expected.most_seconds)}",
        },
    )


def _each(devices: int) -> str:
    return f" on each of {devices} devices" if devices > 1 else ""


def scores(base: Score, adapter: Score, few_shot: Score | None = None) -> None:
    """Print the scores of base, base with examples if it was measured, and adapter in one table, by metric and task."""
    shown = {"base": base, "few-shot": few_shot, "adapter": adapter}
    columns = {name: score for name, score in shown.items() if score is not None}
    rows = [[name, *(_cell(each, name) for each in columns.values())] for name in adapter.values]
    for task in adapter.slices if len(adapter.slices) > 1 else ():
        for name in (name for name in BY_TASK if name in adapter.slices[task].values):
            rows.append([f"{task}/{name}", *(_cell(each.slices[task], name) for each in columns.values())])
    console.table(f"{adapter.rows} held-out rows, \u00b1 standard error", ["metric", *columns], rows)


def answers(score: Score) -> None:
    """Print three held-out answers beside the expected ones; up to two wrong ones come first."""
    wrong = [each for each in score.generations if not each.correct]
    right = [each for each in score.generations if each.correct]
    chosen = [*wrong[:2], *right, *wrong[2:]][:SHOWN]
    cells = [
        [_last_line(each.prompt), _cut(each.expected), _cut(each.answer), "right" if each.correct else "wrong"]
        for each in chosen
    ]
    total = len(score.generations)
    title = f"{len(cells)} of {total} held-out answers; {len(wrong)} of the {total} are wrong"
    console.table(title, ["prompt", "expected", "answer", ""], cells, numbers=False)


def score_metrics(score: Score, prefix: str) -> dict[str, float]:
    """A score as metrics of a run; the standard error of ``exact_match`` is ``exact_match_se``."""
    values = {f"{prefix}/{name}": value for name, value in score.values.items()}
    return values | {f"{prefix}/{name}_se": error for name, error in score.errors.items()}


def general_metrics(general: General | None) -> dict[str, float]:
    """What became of general ability as metrics of a run; none where it was not measured."""
    if general is None:
        return {}
    found = {"loss": general.loss, "rules": general.rules}
    found |= {f"{task}/loss": each for task, each in general.slices.items()}
    return {f"general/{name}_{key}": value for name, each in found.items() for key, value in asdict(each).items()}


def task_metrics(tasks: Mapping[str, Change] | None) -> dict[str, float]:
    """What became of lm-eval's tasks as metrics of a run; none where they were not measured."""
    found = tasks or {}
    return {f"lm_eval/{name}_{key}": value for name, each in found.items() for key, value in asdict(each).items()}


def costs(training: Training) -> dict[str, float]:
    """What a run took, as metrics."""
    return {
        "cost/trainable_parameters": float(training.trainable_parameters),
        "cost/trainable_share": training.trainable_share,
        "cost/peak_memory_bytes": float(training.peak_memory_bytes),
        "cost/seconds": training.seconds,
        "cost/tokens_per_second": training.tokens_per_second,
    }


def verdict(made: Promotion, command: str | None = None) -> None:
    """Print the registered version, what the gate said, and the command that promotes the version."""
    label = "to promote it" if made.verdict.passed else "to promote it all the same"
    console.facts("registry", _verdict(made) | ({label: command} if command else {}))


def summary(
    base: Score,
    adapter: Score,
    training: Training,
    made: Promotion | None,
    link: str | None,
    ui: str | None,
    few_shot: Score | None = None,
) -> None:
    """Print the end of a run: scores, cost, version, and where to look; a sweep's trial has no verdict of its own."""
    scores(base, adapter, few_shot)
    if made:
        answers(adapter)
    share = f"{training.trainable_share:.2%} of {training.total_parameters:,}"
    took = console.duration(training.seconds)
    speed = f"{training.tokens_per_second:,.0f} tokens/s over {training.steps} steps in {took}"
    console.facts(
        "run",
        {
            "trainable": f"{training.trainable_parameters:,} parameters, {share}",
            "speed": speed,
            "peak memory": console.size(training.peak_memory_bytes),
            **(_verdict(made) if made else {}),
            **({"run": link} if link else {}),
            **({"open the UI": ui} if ui else {}),
        },
    )


def runs(found: Sequence[tuple[str, Result]]) -> None:
    """Print the runs of a multirun, the best first, each with the overrides that not all of them have."""
    common = set.intersection(*(set(result.overrides) for _, result in found))
    rows = [
        [
            job,
            f"{result.value:.4g}",
            " ".join(each for each in result.overrides if each not in common),
            result.run or "-",
        ]
        for job, result in found
    ]
    columns = ["job", found[0][1].objective, "overrides", "run"]
    console.table("runs of the multirun, best first", columns, rows, numbers=False)


def _verdict(made: Promotion) -> dict[str, str]:
    version = made.version
    aliases = f" ({', '.join(version.aliases)})" if version and version.aliases else ""
    known = "" if version is None or version.created else ", registered before"
    named = f"{version.name} version {version.number}{aliases}{known}" if version else made.unregistered
    return {"registry": named, "gate": f"{'passed' if made.verdict.passed else 'refused'}: {made.verdict.reason}"}


def _cell(score: Score, metric: str) -> str:
    return console.value_with_error(score[metric], score.errors.get(metric)) if metric in score.values else "-"


def _last_line(prompt: str) -> str:
    """The last line that says something; a template often ends with a marker or a header."""
    lines = prompt.splitlines()
    said = (line for line in reversed(lines) if any(map(str.isalnum, line)) and not HEADER.fullmatch(line))
    return _cut(next(said, prompt), ASKED)


def _cut(text: str, width: int = ANSWERED) -> str:
    said = console.printable(" ".join(text.split()))
    return said if len(said) <= width else f"{said[: width - 3]}..."
