"""Sessions as short text: what the agent was shown, and what it answered."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

from pydantic import JsonValue

from loraloop.core import messages
from loraloop.core.same_task import collapse
from loraloop.records import Message, Session
from loraloop.source.sessions.calls import Iteration, ToolCall, calls, steps

# Bytes are tokens for a byte-level model, so a plain word goes without quotes.
_PLAIN = re.compile(r"\w([\w .:/@%+-]*[\w.:/@%+-])?")
_PLACEHOLDER = re.compile(r"manual review (is )?(needed|required)", re.IGNORECASE)


def asked(session: Session) -> tuple[Message, ...]:
    """What was said before the answer, as it was served: the adapter is trained on what it will be asked with.

    A session with screens is asked in one question: the task and, on a second line, the screens up to the first call,
    repeats left out. Later screens show what the calls did, which is not known when the answer is due.
    """
    recorded = steps(session)
    if recorded:
        question = Message("user", (_situation(session, recorded),))
        return (Message("system", (session.instruction,)), question) if session.instruction else (question,)
    if isinstance(session.prompt, str):
        return (Message("user", (session.prompt,)),)
    # An earlier answer has a session and a rating of its own.
    return tuple(replace(said, learned=said.role != "assistant") for said in messages.read_all(session.prompt))


def _situation(session: Session, recorded: Sequence[Iteration]) -> str:
    acted = next((nth for nth, step in enumerate(recorded) if step.calls), len(recorded))
    seen = (collapse(step.screenshot_summary or "") for step in recorded[: acted + 1])
    screens = " > ".join(text for text, _ in groupby(filter(None, seen)))
    return collapse(session.task) + (f"\nScreen: {screens}" if screens else "")


def answer(session: Session) -> str:
    """The text or plan that the agent gave, else its calls; empty if it gave none or a placeholder."""
    return usable(session.answer) or usable(render(calls(session)))


def usable(text: str | None) -> str:
    """``text`` stripped, or nothing if it only says that somebody ought to look at it."""
    return "" if text is None or _PLACEHOLDER.search(collapse(text)) else text.strip()


def render(calls: Iterable[ToolCall]) -> str:
    """Calls as ``click(Save); type(field=Room,text=B7)``: a lone argument without its name, names sorted."""
    return "; ".join(_call(call) for call in calls)


def _call(call: ToolCall) -> str:
    if len(call.arguments) == 1:
        return f"{call.name}({_value(*call.arguments.values())})"
    return f"{call.name}({','.join(f'{key}={_value(value)}' for key, value in sorted(call.arguments.items()))})"


def _value(value: JsonValue) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _is_json(value):
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
