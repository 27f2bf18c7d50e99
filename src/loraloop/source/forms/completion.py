"""``prompt`` and ``completion``, texts or messages; a ``label`` makes it KTO's form. And plain ``text``."""

from __future__ import annotations

from collections import Counter
from typing import Any

from loraloop.records import Message
from loraloop.source.forms import tools, turns
from loraloop.source.forms.draft import Draft, Row, as_text, asked, label, no_media, text


def read(row: Row) -> Draft:
    """The prompt and what completes it.

    Raises:
        ValueError: Messages of one of them are faulty.
    """
    no_media(row)
    repaired: Counter[str] = Counter()
    prompt = said(row["prompt"], "user", repaired)
    completion = said(row["completion"], "assistant", repaired)
    return Draft(
        messages=(*prompt, *completion),
        tools=tools.read(row),
        label=label(row),
        repaired=repaired,
    )


def said(value: Any, role: str, repaired: Counter[str]) -> tuple[Message, ...]:
    """The messages of a cell; anything else is what ``role`` says, such as a text or an object that is the answer."""
    if turns.holds(value):
        return turns.read(value, repaired)
    words = as_text(role, value)
    return asked("", words) if role == "user" else (Message("assistant", (words,)),)


def plain(row: Row) -> Draft:
    """A text to go on with: it is learned as it stands, without a template."""
    return Draft(messages=(Message("assistant", (text(row, "text"),)),), raw=True)
