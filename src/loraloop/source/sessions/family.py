"""Groups sessions of one task by one agent into good and bad answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loraloop.core.same_task import answer_key, task_key
from loraloop.records import Session
from loraloop.source.sessions.calls import ToolCall, steps
from loraloop.source.sessions.text import answer, usable


@dataclass(frozen=True, slots=True)
class Family:
    """The rated answers to one task by one agent, and what people decided on answers to it.

    Answers are told apart by :func:`loraloop.core.same_task.answer_key`.

    Attributes:
        good: Distinct high-rated answers by their keys: best rating first, then successful, quick, by id. Answers that
            a person rejected are left out.
        bad: Keys of low-rated answers.
        accepted: Keys of what people accepted in review.
        refused: Keys of what people rejected in review.
        turns: The place of each low-rated answer among the low-rated ones, by session id.
        actions: The calls of each good answer that is told by its calls, by the step that they were chosen in.
    """

    good: Mapping[str, str]
    bad: frozenset[str]
    accepted: frozenset[str]
    refused: frozenset[str]
    turns: Mapping[str, int]
    actions: Mapping[str, tuple[tuple[ToolCall, ...], ...]]

    def others(self, text: str) -> list[str]:
        """The good answers that are not ``text``."""
        own = answer_key(text)
        return [good for key, good in self.good.items() if key != own]

    def dealt(self, name: str, rejected: str) -> list[str]:
        """The good answers to set against one low-rated answer.

        They are dealt out in turn: nearly every answer takes part, and the number of pairs grows with the sum of both
        sides, not with their product.
        """
        everyone = list(self.good.values())
        share = everyone[self.turns[name] % len(everyone) :: len(self.turns)] if everyone else []
        differing = [text for text in share if answer_key(text) != answer_key(rejected)]
        return differing or self.others(rejected)[:1]


def vouched(session: Session) -> bool:
    """Whether somebody else than the client who asked says that the answer is good.

    What came with a key was rated with another one. A rating link proves no other: the client who asked has it, too.
    Without keys, in a folder or on a server for its own machine, clients cannot be told apart.
    """
    return session.asked_key is None or session.rated_key not in (None, session.asked_key)


def praised_by_itself(session: Session) -> bool:
    """Whether the answer was asked for and rated with one key."""
    return session.asked_key is not None and session.rated_key == session.asked_key


def families(
    sessions: Mapping[str, Session], low: int, high: int, counts: Callable[[Session], bool] = vouched
) -> dict[str, Family]:
    """The family of every session, by id.

    Args:
        sessions: By id.
        low: Ratings below it are bad.
        high: Ratings from it on are good.
        counts: Whether the good rating of a session counts.
    """
    by_task: dict[tuple[str | None, str], dict[str, Session]] = defaultdict(dict)
    for name, session in sessions.items():
        by_task[task_key(session)][name] = session
    return {
        name: family for group in by_task.values() for family in [_family(group, low, high, counts)] for name in group
    }


def _family(group: Mapping[str, Session], low: int, high: int, counts: Callable[[Session], bool]) -> Family:
    answers = {name: answer(one) for name, one in sorted(group.items())}
    bad = [name for name, text in answers.items() if text and (group[name].stars or high) < low]
    refused = frozenset(answer_key(text) for one in group.values() for text in one.refused)
    good: dict[str, str] = {}
    actions: dict[str, tuple[tuple[ToolCall, ...], ...]] = {}
    for name in sorted(answers, key=lambda name: _rank(name, group[name])):
        key = answer_key(answers[name])
        if key and key not in refused and (group[name].stars or 0) >= high and counts(group[name]):
            good.setdefault(key, answers[name])
            if not usable(group[name].answer):
                actions.setdefault(key, tuple(step.calls for step in steps(group[name])))
    return Family(
        good=good,
        bad=frozenset(answer_key(answers[name]) for name in bad),
        accepted=frozenset(answer_key(one.correction) for one in group.values() if one.correction),
        refused=refused,
        turns={name: turn for turn, name in enumerate(bad)},
        actions=actions,
    )


def _rank(name: str, session: Session) -> tuple[int, bool, float, str]:
    return -(session.stars or 0), not session.success, session.duration or 0, name
