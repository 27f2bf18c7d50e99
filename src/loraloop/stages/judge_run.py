"""Stage ``judge_run``: a model rates the held-out answers of a run, apart from the scores of the source's rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import DataError, JudgeError
from loraloop.workflows import judging, judging_run

if TYPE_CHECKING:
    from loraloop.protocols import Judge, Tracker
    from loraloop.records import Job


def judge_run(job: Job, run: str, limit: int, judge: Judge, tracker: Tracker) -> None:
    """Let the judge rate the adapter's answers, and add ``judge_score`` and a table of it to the run.

    Nothing is added where the judge did not see all of them; the cache keeps what it said for the next time.

    Raises:
        ConfigError: There is no judge.
        DataError: The run holds no answers of an adapter, or did not finish.
        JudgeError: The judge does not answer, or its budget is spent.
    """
    from loraloop.evaluation import store

    found, folder = tracker.read(str(run)), tracker.artifacts(str(run)) / "evaluation" / "adapter"
    if found["status"] != "FINISHED" or not folder.is_dir():
        raise DataError(f"run {run} ({found['status']}) holds no evaluation of an adapter: name one that finished")
    answers = store.read(folder).generations[: int(limit)]
    made, rows = judging_run.rate_answers(judge, answers)
    judging.require_answers(judge, made)
    if made.over:
        raise JudgeError(
            f"{judge.by} saw {len(rows)} of {len(answers)} answers within {'; '.join(made.details.values())}: raise "
            "it, or repeat the command, which goes on from judge.cache"
        )
    with tracker.start(found["name"], resume=found["id"]) as kept:
        metrics = judging_run.log(kept, judge, answers, rows)
    score = metrics.get(judging_run.METRIC)
    error = metrics.get(f"{judging_run.METRIC}_se")
    facts = {
        judging_run.METRIC: "-" if score is None else f"{console.value_with_error(score, error)} of 5",
        "judged": f"{made.counts['judged']} of {len(answers)} answers, {made.counts['cached']} from the cache",
        "failed": "; ".join(f"{made.counts[each]} x {each} ({why})" for each, why in made.details.items()) or "none",
        "cost": f"{made.calls} calls, {made.tokens} tokens, {made.seconds:.1f} s",
    }
    console.facts(f"{judge.by} (rule {judge.rule}) on run {found['name']}", facts)
