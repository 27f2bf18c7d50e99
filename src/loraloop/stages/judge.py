"""Stage ``judge``: a model rates sessions by a rubric, apart from people's stars."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.records.judgement import OVER_BUDGET
from loraloop.workflows import judging
from loraloop.workflows.retraining.deployment import sessions_of

if TYPE_CHECKING:
    from loraloop.feedback.settings import Feedback
    from loraloop.protocols import Judge
    from loraloop.records import Job

MOST = 1_000_000


def judge(
    job: Job,
    limit: int,
    pairs: int,
    rated: bool,
    role: str | None,
    roles: dict[str, str],
    names: dict[str, str],
    judge: Judge,
    feedback: Feedback,
) -> None:
    """Let the judge rate the latest sessions that it has not rated yet, and compare answers to the same task.

    Raises:
        ConfigError: There is no judge, no store, or no such role.
        JudgeError: The judge does not answer.
    """
    own = sessions_of(role, roles, names)
    store = feedback.existing()
    try:
        sessions = store.latest(MOST, lambda each: own(each) and (each.stars is not None or not rated))
        left = judging.waiting(judge, store, sessions)
        compared = judging.pairs(judge, store, sessions) if pairs else []
        made = judging.rate(judge, store, left[: int(limit)], compared[: int(pairs)])
    finally:
        store.close()
    counts = made.counts
    failed = [f"{counts[reason]} x {reason} ({detail})" for reason, detail in made.details.items()]
    facts = {
        "judged": f"{counts['judged']} sessions, {counts['pairs']} pairs, {counts['cached']} of them from the cache",
        "failed": "; ".join(failed) or "none",
        "left": f"{len(left) - counts['judged']} sessions, {len(compared) - counts['pairs']} pairs",
        "cost": f"{made.calls} calls, {made.tokens} tokens, {made.seconds:.1f} s",
    }
    if over := made.details.get(OVER_BUDGET):
        facts["next"] = f"{over} are spent: the same command goes on with what is left"
    console.facts(f"{judge.by} (rule {judge.rule})", facts)
    judging.require_answers(judge, made)
