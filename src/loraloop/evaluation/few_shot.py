"""Rows asked with the nearest training conversations before them, so that a base shows what examples alone can do."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.core import prompts
from loraloop.core.chat_templates import NAMED
from loraloop.core.metrics import conversations
from loraloop.core.tokens import encode_prompt
from loraloop.records import Message, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

GAP = "\n\n"
"""Between the examples of a format string."""


def with_examples(
    rows: Sequence[Row],
    train: Sequence[Row],
    count: int,
    tokenizer: PreTrainedTokenizerBase,
    longest: Sequence[int] | None = None,
) -> list[Row]:
    """The rows with the ``count`` nearest training rows before what they ask, the nearest last.

    Near is what shares words with what the user has said: the Jaccard similarity of the sets of lower-case words;
    among equally near rows the first ones are taken. Of a conversation one turn is shown, the nearest, and only where
    no turn in it is bad: one that is labelled bad, or that no model is to learn. A chat template renders the examples
    as earlier turns, without what their systems say and with the row's own tools. Before a format string they stand as
    whole rows.

    Args:
        rows: Each of one learned turn.
        train: To take examples from.
        count: Of examples a row; fewer where there are fewer.
        tokenizer: Of the base.
        longest: Tokens that each row's prompt may have; of longer ones the farthest examples are left out.
    """
    train = [row for row in train if _good(row)]
    words = [_words(row) for row in train]
    names = conversations(train)
    limits: Sequence[int | None] = longest or [None] * len(rows)
    made, fewer = [], 0
    for row, limit in zip(rows, limits, strict=True):
        near = [train[place] for place in _nearest(_words(row), words, names, count)]
        kept = near if limit is None else _fitting(row, near, tokenizer, limit)
        fewer += len(kept) < len(near)
        made.append(_with(row, kept, tokenizer))
    if fewer:
        log.warning(
            "%d of %d rows are asked with fewer than %d examples: the model has no positions for more",
            fewer,
            len(rows),
            count,
        )
    return made


def _good(row: Row) -> bool:
    said = row.example.messages
    return row.example.label is not False and all(each.learned for each in said if each.role == "assistant")


def _nearest(asked: frozenset[str], words: Sequence[frozenset[str]], names: Sequence[str], count: int) -> Sequence[int]:
    """The places of the nearest rows, the nearest first, no two of one conversation."""
    order = sorted(range(len(words)), key=lambda place: -_jaccard(asked, words[place]))
    first: dict[str | int, int] = {}
    for place in order:
        if len(first) == count:
            break
        first.setdefault(names[place] or place, place)
    return list(first.values())


def _fitting(row: Row, near: Sequence[Row], tokenizer: PreTrainedTokenizerBase, limit: int) -> Sequence[Row]:
    """As many of the nearest examples as the prompt has room for: what the row itself asks is not cut for them."""
    for count in range(len(near), 0, -1):
        if len(encode_prompt(tokenizer, _with(row, near[:count], tokenizer).prompt)) <= limit:
            return near[:count]
    return ()


def _with(row: Row, near: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> Row:
    if not near:
        return row
    examples = near[::-1]
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
