"""What judges said against what people said, where both rated, and what it cost."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from loraloop.core import console
from loraloop.core.same_task import question
from loraloop.feedback.agreement import Agreement, Rated, preferred
from loraloop.records.judgement import PAIR, SCORE

if TYPE_CHECKING:
    from loraloop.feedback.statistics import Interval
    from loraloop.records import Assessment, Session


@dataclass
class Said:
    """What one judge, a model with a rubric, said: the last score of a session counts."""

    scores: dict[str, int] = field(default_factory=dict)
    pairs: dict[tuple[str, str], str] = field(default_factory=dict)
    cost: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def rated(self, sessions: dict[str, Session]) -> list[Rated]:
        """The sessions that a person rated too."""
        both = [(sessions[one], score) for one, score in self.scores.items() if one in sessions]
        return [Rated(one.stars, score, _conversation(one)) for one, score in both if one.stars is not None]

    def compared(self, sessions: dict[str, Session]) -> list[tuple[str, str, int]]:
        """Of each pair that people gave different stars: the task, what the judge prefers, and their difference."""
        found = []
        for (one, two), better in self.pairs.items():
            stars = [sessions[each].stars for each in (one, two) if each in sessions]
            if len(stars) == 2 and stars[0] is not None and stars[1] is not None and stars[0] != stars[1]:
                found.append((question(sessions[one]), better, stars[0] - stars[1]))
        return found


def _conversation(session: Session) -> str:
    return session.conversation_id or session.conversation or session.id


def by_judge(said: list[tuple[str, Assessment]]) -> dict[tuple[str, str], Said]:
    """What each judge said that was asked here, by its name and its rule."""
    found: dict[tuple[str, str], Said] = {}
    for session, each in said:
        what, colon, rule = each.name.partition(":")
        if not colon or what not in (SCORE, PAIR):  # of a log of another program
            continue
        one = found.setdefault((each.by, rule), Said())
        if each.kind == "cost":
            one.cost.update({name: each.value[name] for name in ("calls", "tokens")} | {"questions": 1})
            one.seconds += each.value["seconds"]
            one.failed.update([each.value["failed"]] if each.value["failed"] else [])
        elif each.kind == "preference":
            one.pairs[session, each.value["other"]] = each.value["better"]
        elif each.kind == "feedback" and each.value in range(1, 6):
            one.scores[session] = each.value
    return found


def print_agreement(name: str, found: Agreement) -> None:
    """Print how far the judge agrees, and what people gave where it gave each score."""
    rows = [
        ["same stars", _figure(found.same, ".2f")],
        ["within one star", _figure(found.near, ".2f")],
        ["weighted kappa", _figure(found.kappa, ".2f")],
        ["judge minus people", _figure(found.shift, "+.2f")],
    ]
    print(f"{name} against people: {found.sessions} sessions of {found.conversations} conversations")
    console.table("agreement (95% intervals in brackets)", ["", "value"], rows)
    calibration = [[str(score), str(n), _figure(stars, ".2f")] for score, (n, stars) in found.calibration.items()]
    console.table("what people gave where the judge gave", ["score", "sessions", "mean stars"], calibration)


def print_pairs(compared: list[tuple[str, str, int]], rng: np.random.Generator) -> None:
    """Print how often the judge prefers what people gave more stars; nothing where it compared none."""
    told = [(task, (better == "first") == (more > 0)) for task, better, more in compared if better != "tie"]
    ties = len(compared) - len(told)
    if compared:
        share = f", of the others {_figure(preferred(told, rng), '.2f')} as people" if told else ""
        print(f"pairs: {len(compared)} of the same task, {ties} ties{share}")


def print_cost(said: Said) -> None:
    """Print what the judge said and what it cost."""
    kept = len(said.scores) + len(said.pairs)
    failed = ", ".join(f"{count} x {reason}" for reason, count in said.failed.most_common()) or "none"
    each = f" ({said.cost['tokens'] / kept:.0f} tokens, {said.seconds / kept:.2f} s each)" if kept else ""
    facts = {
        "judged": f"{len(said.scores)} sessions, {len(said.pairs)} pairs",
        "failed": failed,
        "cost": f"{said.cost['calls']} calls, {said.cost['tokens']} tokens, {said.seconds:.1f} s{each}",
    }
    console.facts("what it costs", facts)


def _figure(figure: Interval, form: str) -> str:
    if np.isnan(figure.value):
        return "-"
    ends = "" if np.isnan(figure.low) else f" [{figure.low:{form}}, {figure.high:{form}}]"
    return f"{figure.value:{form}}{ends}"
