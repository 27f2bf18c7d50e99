"""A judge rates sessions of the store; what it says stays apart from what people gave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from loraloop.core.progress import track
from loraloop.core.same_task import answer_key, task_key
from loraloop.errors import JudgeError
from loraloop.records import Assessment, Judgement, Session
from loraloop.records.judgement import JUDGE, NO_ANSWER, OVER_BUDGET, PAIR, SCORE

if TYPE_CHECKING:
    from loraloop.feedback.store import Store
    from loraloop.protocols import Judge

IN_A_ROW = 3
"""Questions without an answer, each with its repetitions, after which the judge counts as down."""
Pair = tuple[Session, Session]


@dataclass
class Judged:
    """What a judge did.

    Attributes:
        counts: ``judged`` and ``pairs``, how many of them were ``cached``, and failures by their reason.
        details: The last failure of each reason, in words.
    """

    counts: Counter[str] = field(default_factory=Counter)
    details: dict[str, str] = field(default_factory=dict)
    calls: int = 0
    tokens: int = 0
    seconds: float = 0.0
    in_a_row: int = 0

    def add(self, found: Judgement, name: str) -> None:
        """Count one answer of the judge."""
        self.counts[found.failed or name] += 1
        self.counts["cached"] += found.cached
        self.calls += found.calls
        self.tokens += found.tokens
        self.seconds += found.seconds
        self.in_a_row = self.in_a_row + 1 if found.failed == NO_ANSWER else 0
        if found.failed:
            self.details[found.failed] = found.detail

    @property
    def over(self) -> bool:
        """Whether it is of no use to ask again in this run."""
        return bool(self.counts[OVER_BUDGET]) or self.in_a_row >= IN_A_ROW


def waiting(judge: Judge, store: Store, sessions: Sequence[Session]) -> list[Session]:
    """Those with an answer that this judge has not scored yet; what judges asked themselves is none of them.

    Those that it failed at come last, so that a limit or a budget is not spent on them alone in every run.
    """
    said = _said(judge, store, SCORE)
    done, failures = {one for one, each in said if each.kind == "feedback"}, _failures(said)
    left = [each for each in sessions if each.answer and each.client != JUDGE and each.id not in done]
    return sorted(left, key=lambda each: failures[each.id])


def pairs(judge: Judge, store: Store, sessions: Sequence[Session]) -> list[Pair]:
    """Different answers to the same task that people gave different stars, and that this judge did not compare yet.

    Those that it failed at come last.
    """
    said = _said(judge, store, PAIR)
    done, failures = {(one, each.value["other"]) for one, each in said if each.kind == "preference"}, _failures(said)
    left = [pair for pair in _siblings(sessions) if (pair[0].id, pair[1].id) not in done]
    return sorted(left, key=lambda pair: failures[pair[0].id])


def rate(judge: Judge, store: Store, sessions: Sequence[Session], compared: Sequence[Pair]) -> Judged:
    """Ask the judge and keep each answer at once; the run ends early when the budget is spent or the judge is down.

    Raises:
        ConfigError: There is no judge.
        StoreError: An answer could not be kept; those before it are.
    """
    judging, made = judge.open(), Judged()
    for session in track(sessions, "judging", "session", len(sessions)):
        found = judging.score(session)
        _keep(store, judge, session, SCORE, found, found.value)
        made.add(found, "judged")
        if made.over:
            return made
    for first, second in track(compared, "comparing", "pair", len(compared)):
        found = judging.prefer(first, second)
        _keep(store, judge, first, PAIR, found, {"other": second.id, "better": found.value})
        made.add(found, "pairs")
        if made.over:
            return made
    return made


def require_answers(judge: Judge, made: Judged) -> None:
    """Refuse a run that ended because the judge is down.

    Raises:
        JudgeError: It gave no answer several times in a row.
    """
    if made.in_a_row >= IN_A_ROW:
        raise JudgeError(
            f"{judge.by} gave no answer to {IN_A_ROW} questions in a row ({made.details[NO_ANSWER]}): see that its "
            "server is up, or raise judge.seconds; the same command goes on with what is left"
        )


def _siblings(sessions: Sequence[Session]) -> Iterator[Pair]:
    tasks: dict[Any, list[Session]] = {}
    for each in sessions:
        if each.answer and each.stars is not None:
            tasks.setdefault(task_key(each), []).append(each)
    for found in tasks.values():
        ordered = sorted(found, key=lambda each: (each.stars or 0, each.id))
        for one, two in pairwise(ordered):
            if one.stars != two.stars and answer_key(one.answer or "") != answer_key(two.answer or ""):
                yield one, two


def _said(judge: Judge, store: Store, what: str) -> list[tuple[str, Assessment]]:
    """What this judge said under its present rule, and what that cost."""
    name = f"{what}:{judge.rule}"
    return [(one, said) for one, said in store.judged() if said.by == judge.by and said.name == name]


def _failures(said: Sequence[tuple[str, Assessment]]) -> Counter[str]:
    """How often it was asked about a session, or the first one of a pair, in vain."""
    return Counter(one for one, each in said if each.kind == "cost" and each.value["failed"])


def _keep(store: Store, judge: Judge, session: Session, what: str, found: Judgement, value: Any) -> None:
    """Keep what was said, if anything was, and what it cost."""
    if found.failed == OVER_BUDGET and not found.calls:
        return
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    cost = {"calls": found.calls, "tokens": found.tokens, "seconds": round(found.seconds, 4), "failed": found.failed}
    names = {"id": "", "source": "judge", "by": judge.by, "name": f"{what}:{judge.rule}", "time": now}
    said = [Assessment(**names, kind="cost", value=cost)]
    if not found.failed:
        # The reason for a preference may quote the other session, and would outlive its erasure.
        kind, reason = ("feedback", found.reason) if what == SCORE else ("preference", "")
        said.append(Assessment(**names, kind=kind, value=value, rationale=reason))
    store.assess(session.id, said)
