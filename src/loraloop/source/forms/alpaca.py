"""Alpaca's columns with what they may hold beyond one turn: ``history``, ``system``, tools, and KTO's tag."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from loraloop.records import Message
from loraloop.source.forms import tools
from loraloop.source.forms.draft import Draft, Row, asked, filled, label, no_media, parsed, text


def read(row: Row) -> Draft:
    """The conversation of a row; the answers of its history are learned as well.

    Raises:
        ValueError: A column holds something else than it should.
    """
    no_media(row)
    said = asked(text(row, "system"), text(row, "instruction"), text(row, "input"))
    return Draft(
        messages=(*said[:-1], *history(row), said[-1], Message("assistant", (text(row, "output"),))),
        tools=tools.read(row),
        label=label({"kto_tag": row["kto_tag"]} if filled(row.get("kto_tag")) else row),
    )


def history(row: Row) -> tuple[Message, ...]:
    """The turns before the question, which a column ``history`` lists as questions with answers.

    Raises:
        ValueError: A member of the list is something else.
    """
    if not has_history(row):
        return ()
    pairs = parsed(row["history"], "history")
    return tuple(message for number, pair in enumerate(pairs, 1) for message in _pair(number, pair))


def has_history(row: Row) -> bool:
    """Whether the column ``history`` holds a list, or its JSON; another value only tells about the row."""
    value = row.get("history")
    if isinstance(value, str):
        try:
            value = parsed(value, "history")
        except (ValueError, RecursionError):
            return False
    return isinstance(value, list | tuple) and len(value) > 0


def _pair(number: int, pair: Any) -> tuple[Message, Message]:
    if (
        not isinstance(pair, Sequence)
        or isinstance(pair, str)
        or len(pair) != 2
        or not all(isinstance(said, str) for said in pair)
    ):
        raise ValueError(f"turn {number} of the history is no question with its answer")
    return Message("user", (pair[0],)), Message("assistant", (pair[1],))
