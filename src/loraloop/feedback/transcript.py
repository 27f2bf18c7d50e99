"""A session as people read it: every turn with its tool calls and results, the answer last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from loraloop.core import messages
from loraloop.feedback.conversations import answered, said
from loraloop.records import Message, Session

ROLES = {"user": "Asked", "assistant": "Answered", "system": "System", "tool": "Tool"}


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn.

    Attributes:
        title: Who speaks, for people.
        calls: Tool calls as ``name {"argument": "value"}``.
    """

    title: str
    text: str
    calls: tuple[str, ...] = ()


def past(session: Session) -> list[Turn]:
    """What was said before the answer."""
    turns = said(session)[:-1]
    if turns:
        return [_turn(each, f"Tool {each.name}" if each.name else None) for each in turns]
    return [Turn(ROLES.get(role, role.capitalize()), text) for role, text in session.turns]


def answer(session: Session) -> Turn:
    """The answer; that of an imported session without one is the calls that it recorded."""
    text = session.answer or ""
    turn = _turn(answered(text)) if not isinstance(session.prompt, str) else Turn(ROLES["assistant"], text)
    recorded = () if turn.text or turn.calls else tuple(_recorded(session))
    return Turn(f"Answer of {session.answered or 'unknown'}", turn.text, (*turn.calls, *recorded))


def goes_on(session: Session) -> bool:
    """Whether there was an answer before this one, so that a person sees a conversation."""
    return any(turn.role == "assistant" for turn in said(session)[:-1])


def _turn(message: Message, title: str | None = None) -> Turn:
    calls = tuple(f"{call.name} {messages.as_json(call.arguments)}" for call in message.tool_calls)
    return Turn(title or ROLES[message.role], message.text, calls)


def _recorded(session: Session) -> Iterator[str]:
    """Calls of an imported session's log, whose form nobody has checked."""
    for step in session.iterations or ():
        for call in (step.get("tool_calls") or ()) if isinstance(step, Mapping) else ():
            if isinstance(call, Mapping):
                arguments = call.get("arguments") or call.get("args") or {}
                shown = messages.as_json(arguments) if isinstance(arguments, Mapping) else arguments
                yield f"{call.get('name') or call.get('tool')} {shown}"
