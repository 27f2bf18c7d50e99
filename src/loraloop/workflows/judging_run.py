"""A judge rates the held-out answers of a run, apart from the scores of the source's rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from loraloop.core.progress import track
from loraloop.records import Generation, Session
from loraloop.workflows.judging import Judged

if TYPE_CHECKING:
    from loraloop.protocols import Judge, Run

METRIC = "judge_score"
TABLE = "evaluation/judged.json"


def rate_answers(judge: Judge, answers: Sequence[Generation]) -> tuple[Judged, list[dict[str, Any]]]:
    """Ask the judge about every answer; it sees prompt and answer, and not what was expected.

    Returns:
        What it did, and a row for each answer with ``judge_score``, which is ``None`` where it gave no verdict. The
        rows end early when the budget is spent or the judge is down.

    Raises:
        ConfigError: There is no judge.
    """
    judging, made, rows = judge.open(), Judged(), []
    for at, each in enumerate(track(answers, "judging", "answer", len(answers))):
        found = judging.score(Session(id=str(at), prompt=each.prompt, answer=each.answer))
        made.add(found, "judged")
        if made.over:
            break
        asked = {"task": each.task, "prompt": each.prompt, "expected": each.expected, "answer": each.answer}
        rows.append({**asked, "correct": each.correct, METRIC: found.value, "reason": found.reason or found.failed})
    return made, rows


def log(run: Run, judge: Judge, answers: Sequence[Generation], rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Add table and metrics to the run: the mean, its standard error over conversations, and how many it is of.

    Without any verdict there is a table and no mean.
    """
    scored = [(row[METRIC], each.conversation) for row, each in zip(rows, answers, strict=False) if row[METRIC]]
    metrics = {f"{METRIC}/rows": float(len(scored)), f"{METRIC}/failed": float(len(rows) - len(scored))}
    if scored:
        values = np.array([value for value, _ in scored], dtype=float)
        metrics[METRIC] = float(values.mean())
        names = [name or f"row {at}" for at, (_, name) in enumerate(scored)]
        _, group = np.unique(names, return_inverse=True)
        sums = np.bincount(group, weights=values - values.mean())
        if (groups := len(sums)) > 1:  # Cochran 1977, with a conversation as the unit
            metrics[f"{METRIC}_se"] = float(np.sqrt(groups / (groups - 1) * np.sum(sums**2)) / len(values))
    run.metrics(metrics)
    run.table([{**row, METRIC: row[METRIC] or ""} for row in rows], TABLE)
    run.tags({"judge": f"{judge.by} (rule {judge.rule})"})
    return metrics
