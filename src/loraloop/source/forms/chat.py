"""One list of messages a row: OpenAI's ``messages``, ShareGPT's ``conversations``; a ``label`` makes it KTO's."""

from __future__ import annotations

from collections import Counter
from typing import Any

from loraloop.records import Message
from loraloop.source.forms import tools, turns
from loraloop.source.forms.draft import Draft, Row, as_bool, filled, label, no_media, text

COLUMNS = ("messages", "conversations", "conversation")


def read(row: Row) -> Draft:
    """The conversation of a row.

    Raises:
        ValueError: It is none.
    """
    no_media(row)
    name = _column(row)
    repaired: Counter[str] = Counter()
    worse = row.get("rejected_message")
    return Draft(
        messages=with_system(text(row, "system"), turns.read(row[name], repaired)),
        tools=tools.read(row),
        rejected=answer(worse, repaired) if filled(worse) else None,
        label=label(row),
        raw=as_bool(row.get("raw")) is True,
        repaired=repaired,
    )


def _column(row: Row) -> str:
    """The column that holds the conversation; where none does, the first that holds anything."""
    there = [name for name in COLUMNS if filled(row.get(name))]
    holding = [name for name in there if turns.holds(row[name])] if len(there) > 1 else there
    if len(holding) > 1:
        raise ValueError(f"{' and '.join(holding)} both hold a conversation: keep one of them")
    return (holding or there)[0]


def with_system(system: str, messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages after what the system says, unless they begin with words of the system themselves."""
    if not system or any(message.role == "system" for message in messages[:1]):
        return messages
    return (Message("system", (system,)), *messages)


def answer(value: Any, repaired: Counter[str]) -> Message:
    """The one message of an assistant that a cell holds.

    Raises:
        ValueError: It holds something else.
    """
    said = turns.read(value, repaired)
    if [message.role for message in said] != ["assistant"]:
        raise ValueError("a rejected answer is one message of the assistant")
    return said[0]
