"""Which form a row is in, by its columns, and the example that it makes."""

from __future__ import annotations

from collections.abc import Callable, Set
from dataclasses import dataclass, replace

import orjson

from loraloop.core import messages
from loraloop.records import Example, Message, Provenance
from loraloop.source.forms import alpaca, chat, completion, preference, turns
from loraloop.source.forms.draft import Draft, Row, filled
from loraloop.source.forms.repair import LONGEST, mend

ABOUT = frozenset({"text", "id", "url", "source", "title", "date", "timestamp", "meta", "metadata", "task", "split"})
"""Columns beside a plain text that tell about it; another one, such as ``label``, may be what is to be learned."""


@dataclass(frozen=True, slots=True)
class Form:
    """A way to write conversations down in rows.

    Attributes:
        knows: Whether a row with these columns, none of them empty, is of the form.
        read: The conversation of a row; a ``ValueError`` says why it has none.
    """

    name: str
    knows: Callable[[Set[str]], bool]
    read: Callable[[Row], Draft]


FORMS = (
    Form("chosen and rejected", lambda names: {"chosen", "rejected"} <= names, preference.read),
    Form("OpenAI messages", lambda names: "messages" in names, chat.read),
    Form("ShareGPT conversations", lambda names: not names.isdisjoint(chat.COLUMNS), chat.read),
    Form("prompt and completion", lambda names: {"prompt", "completion"} <= names, completion.read),
    Form(
        "Alpaca with history, system or kto_tag",
        lambda names: {"instruction", "output"} <= names and not names.isdisjoint({"history", "system", "kto_tag"}),
        alpaca.read,
    ),
    Form("plain text", lambda names: "text" in names and names <= ABOUT, completion.plain),
)
"""The first that knows a row's columns reads it."""


@dataclass(frozen=True, slots=True)
class Made:
    """An example, and what was put right in it, with how often."""

    example: Example
    repaired: dict[str, int]


def recognise(row: Row, *, named: bool = False) -> Form | None:
    """The form of a row; ``None`` for columns that no form has, such as those of one question and its answer.

    A column that holds no conversation is passed over if the others hold an answer, whatever its name says.

    Args:
        row: Its values.
        named: Whether a person said which column holds the conversation.
    """
    names = {name for name, value in row.items() if filled(value)}
    if "history" in names and not alpaca.has_history(row):
        names.remove("history")
    form = _form(names)
    if named or form is None or form.read is not chat.read:
        return form
    others = names.difference(chat.COLUMNS)
    other = _form(others)
    if other is None and "output" not in others:
        return form
    return form if any(turns.holds(row[name]) for name in names.intersection(chat.COLUMNS)) else other


def _form(names: Set[str]) -> Form | None:
    return next((form for form in FORMS if form.knows(names)), None)


def make(form: Form, row: Row, instruction: str, task: str, provenance: Provenance) -> Made:
    """The example of a row.

    Args:
        form: Of the row.
        row: Its values.
        instruction: What the system says where the row lets it say nothing.
        task: Of the example.
        provenance: Of the example.

    Raises:
        ValueError: The row holds no conversation that can be learned.
    """
    draft = form.read(row)
    repaired = draft.repaired
    if draft.raw:
        said = _text(draft.messages)
    else:
        judged = draft.label is not None or draft.rejected is not None
        said = _instructed(mend(draft.messages, repaired, last_is_judged=judged), instruction)
    if draft.rejected is not None and not (draft.rejected.text.strip() or draft.rejected.tool_calls):
        raise ValueError("the rejected answer is empty")
    example = Example(
        messages=said,
        tools=draft.tools,
        raw=draft.raw,
        rejected=draft.rejected,
        label=draft.label,
        task=task,
        provenance=provenance,
    )
    writable(example)
    return Made(example, dict(repaired))


def writable(example: Example) -> None:
    """Refuse what no file of JSON can hold: half of a surrogate pair, or an integer of more than 64 bits.

    Raises:
        ValueError: The example has such a value.
    """
    try:
        everyone = [*example.messages, *filter(None, [example.rejected])]
        orjson.dumps([*map(messages.write, everyone), list(example.tools), example.task])
    except TypeError as error:
        half = "half of a surrogate pair" if "UTF-8" in str(error) or "surrogate" in str(error) else str(error)
        raise ValueError(f"it cannot be written as JSON: {half}") from error


def _text(said: tuple[Message, ...]) -> tuple[Message, ...]:
    length = sum(len(message.text) for message in said)
    if length > LONGEST:
        raise ValueError(f"the text has {length:,} characters, more than {LONGEST:,}: split it")
    if not said[-1].text.strip():
        raise ValueError("the text is empty")
    return said


def _instructed(said: tuple[Message, ...], instruction: str) -> tuple[Message, ...]:
    """The messages with an instruction that they lack: before a lone question, or as the system's words."""
    if not instruction or said[0].role == "system" or len(said[0].parts) > 1:
        return said
    if [message.role for message in said] == ["user", "assistant"]:
        return (replace(said[0], parts=(instruction, *said[0].parts)), said[1])
    return (Message("system", (instruction,)), *said)
