"""Which proposed corrections wait for a person, and in which order: the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, model_validator

from loraloop.core.part import part
from loraloop.feedback.store import Proposal, Store, UnknownSessionError
from loraloop.records import Session
from loraloop.records.judgement import SCORE

ERASED = "its session was erased."
REPLACED = "another correction of the same session was proposed in its place."
WITHDRAWN = "it was withdrawn."
BEST, RANGE = 5, 4
"""The most stars, and the distance to the fewest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What a decision would teach: four shares of 0 to 1, each 0 where it is not known, and their sum.

    Attributes:
        stars: What a person gave.
        score: What a judge gave last.
        mean: The mean of people's stars for the agent role that was asked.
    """

    stars: int | None = None
    score: int | None = None
    mean: float | None = None

    @property
    def total(self) -> float:
        """``(5 - stars)/4 + (5 - score)/4 + |stars - score|/4 + (5 - mean)/4``."""
        apart = 0.0 if self.stars is None or self.score is None else abs(self.stars - self.score) / RANGE
        return apart + sum((BEST - each) / RANGE for each in (self.stars, self.score, self.mean) if each is not None)


@dataclass(frozen=True, slots=True)
class Item:
    """A proposal with its session and what a decision on it would teach."""

    proposal: Proposal
    session: Session
    worth: Worth


@part
class Queue:
    """The order of proposals.

    Attributes:
        below: Stars; sessions rated below it are to be corrected.
        order: ``teach`` begins with the largest :attr:`Worth.total`, ``judge`` with the lowest score of a judge, and
            both with the oldest of equals; ``oldest`` is the order in which they were proposed.
        judge: With ``never`` no score of a judge counts.
    """

    below: Annotated[int, Field(ge=2, le=5)] = 4
    order: Literal["teach", "judge", "oldest"] = "teach"
    judge: Literal["rank", "trigger", "never"] = "rank"

    @model_validator(mode="after")
    def _a_judge_may_rank(self) -> Queue:
        if self.order == "judge" and self.judge == "never":
            raise ValueError("order=judge asks for the judge's scores, and policy.judge=never: write order=teach")
        return self

    def items(self, store: Store, own: Callable[[Session], bool] = lambda session: True) -> list[Item]:
        """The proposals that wait, of sessions for which ``own`` holds, in their order."""
        scores = {} if self.judge == "never" else _scores(store)
        means = store.mean_stars()
        found = [Item(proposal, session, _worth(session, scores, means)) for proposal, session in store.proposed(own)]
        return sorted(found, key=self._key)

    def _key(self, item: Item) -> tuple[float, int]:
        first = {
            "teach": -item.worth.total,
            "judge": math.inf if item.worth.score is None else item.worth.score,
            "oldest": 0.0,
        }
        return first[self.order], item.proposal.id


def gone(store: Store, session: str) -> tuple[str, int | None]:
    """Why a proposal of a session that nobody decided on waits no longer, and which proposal waits in its place."""
    try:
        found = store.session(session)
    except UnknownSessionError:
        return ERASED, None
    newer = next((each.id for each in store.proposals() if each.session == found.id), None)
    return (REPLACED if newer else WITHDRAWN), newer


def _scores(store: Store) -> dict[str, int]:
    """The last score of each session that a judge here gave."""
    said = [(session, each) for session, each in store.judged() if each.kind == "feedback"]
    return {session: each.value for session, each in said if each.name.startswith(f"{SCORE}:")}


def _worth(session: Session, scores: Mapping[str, int], means: Mapping[str | None, float]) -> Worth:
    return Worth(stars=session.stars, score=scores.get(session.id), mean=means.get(session.role))
