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
    history = [message for pair in _pairs(row.get("history")) for message in pair]
    return Draft(
        messages=(*said[:-1], *history, said[-1], Message("assistant", (text(row, "output"),))),
        tools=tools.read(row),
        label=label({"label": row.get("kto_tag")}),
    )


def _pairs(value: Any) -> list[tuple[Message, Message]]:
    if not filled(value):
        return []
    value = parsed(value, "history")
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"history is a list of questions with answers, not {type(value).__name__}")
    return [_pair(number, pair) for number, pair in enumerate(value, 1)]


def _pair(number: int, pair: Any) -> tuple[Message, Message]:
    if (
        not isinstance(pair, Sequence)
        or isinstance(pair, str)
        or len(pair) != 2
        or not all(isinstance(said, str) for said in pair)
    ):
        raise ValueError(f"turn {number} of the history is no question with its answer")
    return Message("user", (pair[0],)), Message("assistant", (pair[1],))
