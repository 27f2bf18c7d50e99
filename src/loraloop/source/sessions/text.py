"""Sessions as short text: what the agent was shown, and what it answered."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from itertools import groupby

from pydantic import JsonValue

from loraloop.source.sessions.log import Session, ToolCall

# Bytes are tokens for a byte-level model, so a plain word goes without quotes.
_PLAIN = re.compile(r"\w([\w .:/@%+-]*[\w.:/@%+-])?")
_PLACEHOLDER = re.compile(r"manual review (is )?(needed|required)", re.IGNORECASE)


def collapse(text: str) -> str:
    """``text`` in Unicode's composed form with every run of white space as one space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def task_key(task: str) -> str:
    """What makes two tasks the same: their words, whatever the case and the final punctuation."""
    return collapse(task).casefold().rstrip(" .!?")


def asked(session: Session) -> str:
    """The :func:`task_key` of everything that was asked."""
    return task_key(f"{session.instruction}\n{session.task}")


def situation(session: Session) -> str:
    """The task and, on a second line, the screens up to the first call, repeats left out.

    Later screens show what the calls did, which is not known when the answer is due. A task without screens is what a
    server was asked, and stays as it is, lines and all: the adapter is to answer the same prompt again.
    """
    if not session.steps:
        return session.task
    acted = next((nth for nth, step in enumerate(session.steps) if step.calls), len(session.steps))
    seen = (collapse(step.screenshot_summary or "") for step in session.steps[: acted + 1])
    screens = " > ".join(text for text, _ in groupby(filter(None, seen)))
    return collapse(session.task) + (f"\nScreen: {screens}" if screens else "")


def answer(session: Session) -> str:
    """The text or plan that the agent gave, else its calls; empty if it gave none or a placeholder."""
    return usable(session.answer) or usable(render(session.calls))


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
