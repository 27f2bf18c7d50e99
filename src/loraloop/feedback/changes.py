"""What a correction changes in an answer: its text word by word, its tool calls argument by argument."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from loraloop.core import tool_calls
from loraloop.core.messages import as_json
from loraloop.feedback import transcript
from loraloop.feedback.arguments import as_text
from loraloop.feedback.words import Piece, aligned, difference
from loraloop.records import Session, ToolCall

LEVELS = 20
"""Of objects in an argument that are compared member by member; what lies deeper is compared whole."""


def readable(text: str, session: Session) -> str:
    """A correction or an answer as people compare it: text, then a line for each call and each of its arguments."""
    said, calls = tool_calls.given(text, bool(session.tools))
    return "\n".join([*[said] * bool(said), *map(_lines, calls)])


def answer(session: Session) -> str:
    """The answer as it is compared; that of an imported session without one is the calls that it recorded."""
    return session.answer or "; ".join(transcript.answer(session).calls)


def changes(correction: str, session: Session) -> list[Piece]:
    """What a correction makes of a session's answer, laid out as :func:`readable` does.

    A call is compared with one of the same tool, and an argument with that of the same name, so that no value is shown
    as if it had been that of another argument.
    """
    offered = bool(session.tools)
    (was, before), (text, after) = (tool_calls.given(each, offered) for each in (answer(session), correction))
    return _joined([*[difference(was, text)] * bool(was or text), *_calls(before, after)], "\n")


def _calls(before: Sequence[ToolCall], after: Sequence[ToolCall]) -> Iterator[list[Piece]]:
    """Each call that was or is there: equal ones beside each other, and between these the ones of the same tool."""
    for _, old, new in aligned(before, after, lambda each: (each.name, as_json(each.arguments))):
        for same_tool, removed, added in aligned(old, new, lambda each: each.name):
            if same_tool:
                yield from map(_call, removed, added)
            else:
                yield from ([Piece("removed", _lines(each))] for each in removed)
                yield from ([Piece("added", _lines(each))] for each in added)


def _call(old: ToolCall, new: ToolCall) -> list[Piece]:
    members = _members(old.arguments, new.arguments, _argument, LEVELS)
    return _joined([[Piece("same", f"calls {old.name}")], *members], "\n")


def _members(
    old: Mapping[str, Any], new: Mapping[str, Any], label: Callable[[str], str], levels: int
) -> Iterator[list[Piece]]:
    for name in {**old, **new}:
        if name not in new:
            yield [Piece("removed", label(name) + as_text(old[name]))]
        elif name not in old:
            yield [Piece("added", label(name) + as_text(new[name]))]
        else:
            yield [Piece("same", label(name)), *_value(old[name], new[name], levels)]


def _value(old: Any, new: Any, levels: int) -> list[Piece]:
    """Texts word by word, objects member by member, all else whole: half of a number or of a list says nothing."""
    before, after = as_text(old), as_text(new)
    if isinstance(old, str) and isinstance(new, str):
        return difference(before, after)
    if levels and isinstance(old, Mapping) and isinstance(new, Mapping):
        members = _members(old, new, lambda name: f"{as_text(name)}: ", levels - 1)
        return [Piece("same", "{"), *_joined([*members], ", "), Piece("same", "}")]
    return [Piece("same", before)] if before == after else [Piece("removed", before), Piece("added", after)]


def _joined(parts: Sequence[Sequence[Piece]], between: str) -> list[Piece]:
    return [piece for at, part in enumerate(parts) for piece in [*[Piece("same", between)] * bool(at), *part]]


def _lines(call: ToolCall) -> str:
    return "\n".join(
        [f"calls {call.name}", *(_argument(name) + as_text(each) for name, each in call.arguments.items())]
    )


def _argument(name: str) -> str:
    return f"  {name}: "
