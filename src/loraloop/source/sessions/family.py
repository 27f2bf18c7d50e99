"""Groups sessions of one task by one agent into good and bad answers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from loraloop.core.same_task import collapse, task_key
from loraloop.records import Session
from loraloop.source.sessions.text import answer


@dataclass(frozen=True, slots=True)
class Family:
    """The rated answers to one task by one agent.

    Attributes:
        good: Distinct high-rated answers by their collapsed text: best rating first, then successful, quick, by id.
        bad: Collapsed low-rated answers.
        turns: The place of each low-rated answer among the low-rated ones, by session id.
    """

    good: Mapping[str, str]
    bad: frozenset[str]
    turns: Mapping[str, int]

    def others(self, text: str) -> list[str]:
        """The good answers that are not ``text``."""
        collapsed = collapse(text)
        return [good for key, good in self.good.items() if key != collapsed]

    def dealt(self, name: str, rejected: str) -> list[str]:
        """The good answers to set against one low-rated answer.

        They are dealt out in turn: nearly every answer takes part, and the number of pairs grows with the sum of both
        sides, not with their product.
        """
        everyone = list(self.good.values())
        share = everyone[self.turns[name] % len(everyone) :: len(self.turns)] if everyone else []
        differing = [text for text in share if collapse(text) != collapse(rejected)]
        return differing or self.others(rejected)[:1]


def families(sessions: Mapping[str, Session], low: int, high: int) -> dict[str, Family]:
    """The family of every session, by id; ratings below ``low`` are bad, ``high`` or more good."""
    by_task: dict[tuple[str | None, str], dict[str, Session]] = defaultdict(dict)
    for name, session in sessions.items():
        by_task[task_key(session)][name] = session
    return {name: family for group in by_task.values() for family in [_family(group, low, high)] for name in group}


def _family(group: Mapping[str, Session], low: int, high: int) -> Family:
    answers = {name: answer(one) for name, one in sorted(group.items())}
    bad = [name for name, text in answers.items() if text and (group[name].stars or high) < low]
    good: dict[str, str] = {}
    for name in sorted(answers, key=lambda name: _rank(name, group[name])):
        if answers[name] and (group[name].stars or 0) >= high:
            good.setdefault(collapse(answers[name]), answers[name])
    return Family(
        good=good,
        bad=frozenset(collapse(answers[name]) for name in bad),
        turns={name: turn for turn, name in enumerate(bad)},
    )


def _rank(name: str, session: Session) -> tuple[int, bool, float, str]:
    return -(session.stars or 0), not session.success, session.duration or 0, name
