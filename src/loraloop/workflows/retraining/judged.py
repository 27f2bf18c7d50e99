"""A judge's scores in the trigger: only while the judge is shown to agree with people, and only there."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from loraloop.core.durations import moment
from loraloop.feedback.agreement import Rated, measure
from loraloop.records.judgement import SCORE

if TYPE_CHECKING:
    from collections.abc import Callable

    from loraloop.feedback.store import Store
    from loraloop.policy import Policy
    from loraloop.records import Assessment, Look, Outcome

MIN_CONVERSATIONS = 20
"""With fewer that people and judge rated, it was not measured that the interval of kappa holds."""
MIN_OF_EACH = 5
"""Conversations that people rated below ``policy.below``, and as many that they did not: a judge has to tell these."""


@dataclass(frozen=True, slots=True)
class Counted:
    """What a trigger decides on.

    Attributes:
        outcomes: With the scores that count in the place of missing stars.
        numbers: For the ledger: whether the judge counted, and why.
        said: The same in words; empty where the policy lets no judge count.
    """

    outcomes: Sequence[Outcome]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    said: str = ""


def count(
    policy: Policy, store: Store, owns: Callable[[str], bool], answered: str, look: Look, since: str,
    outcomes: Sequence[Outcome], seed: int,
) -> Counted:  # fmt: skip
    """The outcomes with the scores of the judge that scored this model last, where policy and agreement let them count.

    Its agreement is quadratically weighted kappa on the answers of this model that people rated too, as in
    ``stage=judge_report``: the lower end of its 95% interval has to reach ``policy.judge_min_agreement``, with enough
    good and bad answers among them. A score stands for the rating of the client whose answer it is. It never takes the
    place of a person's rating, in the same conversation neither.

    Args:
        policy: Says what a judge may do.
        store: The sessions.
        owns: Whether a version is of the model.
        answered: The version that the trigger is about.
        look: What the trigger reads.
        since: Start of what counts.
        outcomes: What people said.
        seed: Of the bootstrap.
    """
    if policy.judge != "trigger":
        return Counted(outcomes, {"judge": f"not counted (policy.judge={policy.judge})"})
    own = [each for each in store.outcomes() if owns(each.answered)]
    sessions = {each.session for each in own}
    by, scores = _last([said for said in store.judged() if said[0] in sessions])
    if not scores:
        return _not(outcomes, "no judge has scored an answer of this model (stage=judge)")
    both = [
        Rated(each.stars, scores[each.session].value, each.conversation)
        for each in own
        if each.stars is not None and each.session in scores
    ]
    conversations = len({each.conversation for each in both})
    if conversations < MIN_CONVERSATIONS:
        return _not(outcomes, f"{by} and people rated {conversations} conversations; {MIN_CONVERSATIONS} are needed")
    bad = len({each.conversation for each in both if each.stars < policy.below})
    good = len({each.conversation for each in both if each.stars >= policy.below})
    if min(bad, good) < MIN_OF_EACH:
        gave = f"people gave {bad} conversations less than {policy.below} stars (policy.below), {good} as many or more"
        return _not(outcomes, f"where {by} scored, {gave}; {MIN_OF_EACH} of each are needed")
    low, bound = measure(both, np.random.default_rng(seed)).kappa.low, policy.judge_min_agreement
    kappa = {"judge_by": by, "judge_kappa_low": None if math.isnan(low) else low, "judge_min_agreement": bound}
    if not low >= bound:
        known = "is not known" if math.isnan(low) else f"is at least {low:.2f}"
        why = f"the kappa of {by} against people {known}, and policy.judge_min_agreement={bound:g}"
        return _not(outcomes, why, kappa)
    rated = {each.conversation for each in own if each.stars is not None}
    free = {each.session for each in own if each.answered == answered and each.conversation not in rated}
    stand_ins = [
        replace(each, stars=scores[each.session].value, rated=scores[each.session].time)
        for each in own
        if each.session in free and each.session in scores and _in(look, since, each, scores[each.session])
    ]
    why = f"kappa of {by} against people is at least {low:.2f} >= policy.judge_min_agreement={bound:g}"
    numbers = {"judge": f"counted: {why}", "judge_ratings": len(stand_ins), **kappa}
    return Counted(_merged(outcomes, stand_ins, look), numbers, f"; {len(stand_ins)} ratings are the judge's: {why}")


def _not(outcomes: Sequence[Outcome], why: str, numbers: Mapping[str, Any] | None = None) -> Counted:
    return Counted(outcomes, {"judge": f"not counted: {why}", **(numbers or {})}, f"; the judge does not count: {why}")


def _last(said: Sequence[tuple[str, Assessment]]) -> tuple[str, dict[str, Assessment]]:
    """The judge that scored last, with its rubric, and its last score of each session."""
    scored = [(session, each) for session, each in said if each.kind == "feedback" and _is_score(each)]
    if not scored:
        return "", {}
    last = scored[-1][1]
    return last.by, {session: each for session, each in scored if (each.by, each.name) == (last.by, last.name)}


def _is_score(said: Assessment) -> bool:
    return said.name.startswith(f"{SCORE}:") and said.value in range(1, 6)


def _in(look: Look, since: str, outcome: Outcome, said: Assessment) -> bool:
    """Whether a score is one of those that the trigger reads, had a person given it."""
    first = max(moment(each) for each in (since, look.rated_since) if each)
    return bool(said.time) and moment(outcome.time) >= moment(since) and moment(said.time or "") >= first


def _merged(outcomes: Sequence[Outcome], stand_ins: Sequence[Outcome], look: Look) -> list[Outcome]:
    known = {each.session: each for each in outcomes}
    wanted = [each for each in stand_ins if look.latest is None or each.session in known]
    merged = known | {each.session: each for each in wanted}
    return sorted(merged.values(), key=lambda each: each.time)
