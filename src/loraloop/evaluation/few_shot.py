"""Rows asked with the nearest training conversations before them, so that a base shows what examples alone can do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.core import prompts
from loraloop.core.chat_templates import NAMED
from loraloop.records import Message, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

GAP = "\n\n"
"""Between the examples of a format string."""


def with_examples(
    rows: Sequence[Row], train: Sequence[Row], count: int, tokenizer: PreTrainedTokenizerBase
) -> list[Row]:
    """The rows with the ``count`` nearest training rows before what they ask, the nearest last.

    Near is what shares words with what the user has said: the Jaccard similarity of the sets of lower-case words;
    among equally near rows the first ones are taken. A chat template renders the examples as earlier turns, without
    what their systems say and with the row's own tools. Before a format string they stand as whole rows.

    Args:
        rows: Each of one learned turn.
        train: To take examples from.
        count: Of examples a row; fewer where there are fewer.
        tokenizer: Of the base.
    """
    words = [_words(row) for row in train]
    made = []
    for row in rows:
        asked = _words(row)
        near = sorted(range(len(train)), key=lambda place: -_jaccard(asked, words[place]))[:count]
        made.append(_with(row, [train[place] for place in reversed(near)], tokenizer))
    return made


def _with(row: Row, examples: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> Row:
    if row.template not in NAMED or row.example.raw:
        before = "".join(f"{each.prompt}{each.completion}{GAP}" for each in examples)
        return replace(row, prompt=before + row.prompt)
    own = row.example.past
    system = [message for message in own[:1] if message.role == "system"]
    earlier: list[Message] = [m for each in examples for m in each.example.messages if m.role != "system"]
    said = [*system, *earlier, *own[len(system) :]]
    return replace(row, prompt=prompts.ask(row.template, tokenizer, said, row.example.tools))


def _words(row: Row) -> frozenset[str]:
    said = " ".join(message.text for message in row.example.past if message.role == "user")
    return frozenset(re.findall(r"\w+", said.lower()))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / max(1, len(one | other))
