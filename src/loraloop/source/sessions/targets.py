"""What a badly rated session should have answered: a person's correction, a good sibling, or a rule per issue."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from loraloop.core.same_task import answer_key
from loraloop.core.session_file import ISSUES, issue_word
from loraloop.records import Session
from loraloop.source.sessions.calls import ToolCall, calls, steps
from loraloop.source.sessions.family import Family
from loraloop.source.sessions.text import answer, render, usable

LONGEST_WAIT = 60
"""Seconds; no rule makes an agent wait longer."""

# Tesseract words at 90 or above are right 99.3% of the time; below, a second look pays.
SURE = 90

_READING = re.compile(r"(?<![A-Za-z])(ocr|OCR|read)(?![a-z])")
_WAITS = ("timeout", "wait", "seconds")


@dataclass(frozen=True, slots=True)
class Target:
    """An answer to learn, and where it comes from: a person's correction, a good sibling, or a rule.

    Attributes:
        steps: The calls that the text tells, by the step that they were chosen in; none where it is no list of calls.
    """

    source: Literal["user", "sibling", "rule"]
    text: str
    steps: tuple[tuple[ToolCall, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """How an issue is corrected: ``correct`` yields calls, best first; ``needs`` names what they are made from."""

    correct: Callable[[Session], Iterator[Sequence[ToolCall]]]
    needs: str


def targets(session: Session, family: Family) -> Iterator[Target]:
    """Answers to learn instead of the session's own, best first: its correction, good siblings, and what rules make.

    What a person rejected for the task is none of them, unless a person accepted it for this session.

    Args:
        session: A badly rated session.
        family: Its family.
    """
    own = answer_key(answer(session))
    if (text := usable(session.correction)) and answer_key(text) != own:
        yield Target("user", text)
    yield from (Target("sibling", text, family.actions.get(key, ())) for key, text in family.good.items() if key != own)
    for made in _corrected(session):
        text = render(made)
        if usable(text) and answer_key(text) not in family.bad | family.refused:
            yield Target("rule", text, (tuple(made),))


def lacking(session: Session) -> str:
    """Why no rule applies to the session, in words."""
    if not session.issues:
        return "what_went_wrong is empty"
    return ", ".join(
        f"{label!r} needs {rule.needs}"
        if (rule := RULES.get(issue_word(issue)))
        else f"no automatic correction exists for {label!r}"
        for issue in session.issues
        for label in [ISSUES.get(issue, issue)]
    )


def _corrected(session: Session) -> Iterator[Sequence[ToolCall]]:
    for issue in session.issues:
        if rule := RULES.get(issue_word(issue)):
            yield from rule.correct(session)


def _reread(session: Session) -> Iterator[Sequence[ToolCall]]:
    """Repeat every unsure reading on a crop of twice the resolution, and verify it before the calls that follow."""
    recorded = calls(session)
    sharper = [each for call in recorded for each in (_sharpened(call) if _unsure(call) else (call,))]
    if len(sharper) > len(recorded):
        yield sharper


def _unsure(call: ToolCall) -> bool:
    return bool(_READING.search(call.name)) and (call.confidence is None or call.confidence < SURE)


def _sharpened(call: ToolCall) -> tuple[ToolCall, ...]:
    region = {key: value for key, value in call.arguments.items() if key != "scale"} or {"region": "screen"}
    scale = _number(call.arguments.get("scale")) or 1
    crop = ToolCall(name="crop", arguments={**region, "scale": 2 * scale})
    return crop, ToolCall(name=call.name, arguments=region), ToolCall(name="verify", arguments=region)


def _choose_again(session: Session) -> Iterator[Sequence[ToolCall]]:
    """Replace the call that is most likely wrong by each recorded alternative.

    That call is one that failed, else the least confident, else the last. Later iterations are left out: they were
    chosen on screens that the wrong call led to.
    """
    recorded = [step.calls for step in steps(session)]
    places = [(at, nth) for at, chosen in enumerate(recorded) for nth, call in enumerate(chosen) if _others(call)]
    if not places:
        return
    at, nth = min(reversed(places), key=lambda place: _doubt(recorded[place[0]][place[1]]))
    before = [call for chosen in recorded[:at] for call in chosen]
    chosen = recorded[at]
    for other in _others(chosen[nth]):
        yield [*before, *chosen[:nth], other, *chosen[nth + 1 :]]


def _others(call: ToolCall) -> list[ToolCall]:
    return [other for other in call.alternatives or () if render([other]) != render([call])]


def _doubt(call: ToolCall) -> tuple[bool, float]:
    return not call.error, 100 if call.confidence is None else call.confidence


def _take_time(session: Session) -> Iterator[Sequence[ToolCall]]:
    """Split the call that ran out of time in two, or let it wait longer, within a bound.

    That call is one that failed, else the one that took longest, else the last.
    """
    made = calls(session)
    if not made:
        return
    nth = min(reversed(range(len(made))), key=lambda index: (not made[index].error, -(made[index].seconds or 0)))
    for instead in (_halves(made[nth]), _longer(made[nth])):
        if instead:
            yield [*made[:nth], *instead, *made[nth + 1 :]]


def _halves(call: ToolCall) -> tuple[ToolCall, ...]:
    for key, value in call.arguments.items():
        if isinstance(value, list) and len(value) > 1:
            middle = math.ceil(len(value) / 2)
            return _with(call, key, value[:middle]), _with(call, key, value[middle:])
    return ()


def _longer(call: ToolCall) -> tuple[ToolCall, ...]:
    for key in _WAITS:
        if key in call.arguments:
            wait = _number(call.arguments[key])
            return (_with(call, key, min(2 * wait, LONGEST_WAIT)),) if wait and wait < LONGEST_WAIT else ()
    bound = min(2 * math.ceil(call.seconds or LONGEST_WAIT / 4), LONGEST_WAIT)
    subject = next(iter(call.arguments.values()), call.name)
    return ToolCall(name="wait_for", arguments={"target": subject, "timeout": max(1, bound)}), call


def _with(call: ToolCall, key: str, value: Any) -> ToolCall:
    return call.model_copy(update={"arguments": {**call.arguments, key: value}})


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 else None


RULES = {
    "ocr_confidence_low": Rule(_reread, f"a recorded reading below {SURE}% confidence"),
    "wrong_action_selected": Rule(_choose_again, "a recorded alternative action"),
    "timeout": Rule(_take_time, f"a recorded call that can be split or wait longer within {LONGEST_WAIT} s"),
}
"""By the issue's word (:data:`loraloop.core.session_file.ISSUES`)."""
