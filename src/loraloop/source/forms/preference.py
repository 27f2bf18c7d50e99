"""``chosen`` and ``rejected``: texts, messages or whole conversations, with a prompt of their own or a common one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from loraloop.records import Message
from loraloop.source.forms import alpaca, chat, completion, tools, turns
from loraloop.source.forms.draft import Draft, Row, as_text, asked, filled, no_media, text

SPOKEN = re.compile(r"(?:^|\n\n)(Human|Assistant):[ \t]?")
"""How transcripts of Anthropic's HH-RLHF begin a turn."""
SPEAKERS = {"Human": "user", "Assistant": "assistant"}


def read(row: Row) -> Draft:
    """The common past with the better answer, and the worse one beside it.

    Raises:
        ValueError: The two have no common past, or differ in more than one answer.
    """
    no_media(row)
    repaired: Counter[str] = Counter()
    history = alpaca.history(row)
    prompt = _after(history, _prompt(row, repaired))
    sides = [_side(name, row[name], bool(prompt), repaired) for name in ("chosen", "rejected")]
    raw = not prompt and all(isinstance(side, str) for side in sides)
    better, worse = _continued(*map(str, sides)) if raw else map(_messages, sides)
    common = _shared(better, worse)
    if len(better) == common or len(worse) == common:
        raise ValueError("chosen and rejected are equal, or one goes on where the other ends")
    if len(better) != common + 1 or len(worse) != common + 1 or {better[-1].role, worse[-1].role} != {"assistant"}:
        raise ValueError("chosen and rejected differ in more than the assistant's last turn")
    whole = bool(common) and better[0].role in ("system", "user")
    past = _after(history, better[:common]) if whole else (*prompt, *better[:common])
    if not past:
        raise ValueError("chosen and rejected have no prompt, neither in a column nor in common")
    messages = chat.with_system(text(row, "system"), (*past, better[-1]))
    return Draft(messages=messages, tools=tools.read(row), rejected=worse[-1], raw=raw, repaired=repaired)


def _shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many members two sequences have in common from their beginning on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def _prompt(row: Row, repaired: Counter[str]) -> tuple[Message, ...]:
    """What both sides answer, where a column says it."""
    for name in ("prompt", "messages", "conversations"):
        if filled(row.get(name)):
            return completion.said(row[name], "user", repaired)
    if filled(row.get("instruction")) or filled(row.get("input")):
        return asked("", text(row, "instruction"), text(row, "input"))
    return asked("", text(row, "question")) if filled(row.get("question")) else ()


def _after(history: tuple[Message, ...], said: tuple[Message, ...]) -> tuple[Message, ...]:
    """What is said after the turns before it, unless it begins with them; the system's words stay first."""
    count = sum(1 for _ in takewhile(lambda message: message.role == "system", said))
    if said[count : count + len(history)] == history:
        return said
    return (*said[:count], *history, *said[count:])


def _side(name: str, value: Any, prompted: bool, repaired: Counter[str]) -> str | tuple[Message, ...]:
    """An answer or a conversation; a text that is no transcript stays one where no prompt is known."""
    if turns.holds(value):
        return turns.read(value, repaired)
    value = as_text(name, value)
    if not prompted and SPOKEN.match(value):
        return _transcript(value)
    return (Message("assistant", (value,)),) if prompted else value


def _transcript(value: str) -> tuple[Message, ...]:
    _, *pieces = SPOKEN.split(value)
    spoken = zip(pieces[::2], pieces[1::2], strict=True)
    return turns.read([{"role": SPEAKERS[who], "content": words.strip()} for who, words in spoken], Counter())


def _messages(side: str | tuple[Message, ...]) -> tuple[Message, ...]:
    return (Message("assistant", (side,)),) if isinstance(side, str) else side


def _continued(chosen: str, rejected: str) -> tuple[tuple[Message, ...], tuple[Message, ...]]:
    """Two texts as one beginning, up to the last space that they share, and two ways to go on."""
    shared = chosen[: _shared(chosen, rejected)]
    prompt = shared[: max(shared.rfind(" "), shared.rfind("\n")) + 1]
    past = (Message("user", (prompt,)),) if prompt.strip() else ()
    return tuple(  # type: ignore[return-value]
        (*past, Message("assistant", (side[len(prompt) :],))) for side in (chosen, rejected)
    )
