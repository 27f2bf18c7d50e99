"""Token ids cut to the model's positions, and put into batches of similar length."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from loraloop.core.row_name import row_name
from loraloop.core.tokens import encode_rows
from loraloop.records import Quarantined, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def shorten(ids: list[int], keep: int, start: int | None) -> list[int]:
    """The last ``keep`` ids, with the start token kept in front if ``ids`` begins with it."""
    if len(ids) <= keep:
        return ids
    if keep > 1 and ids[0] == start:
        return [ids[0], *ids[len(ids) - keep + 1 :]]
    return ids[len(ids) - keep :]


def fit(
    encoded: Sequence[tuple[list[int], int]], positions: int | None, start: int | None
) -> list[tuple[list[int], int]]:
    """Shorten prompts from the left until every row fits the model's ``positions``; one warning says how many.

    Every completion is shorter than that, see :func:`answerable`.
    """
    if positions is None:
        return list(encoded)
    fitted, cut = [], 0
    for ids, length in encoded:
        prompt = shorten(ids[:length], positions - (len(ids) - length), start)
        cut += len(prompt) < length
        fitted.append((prompt + ids[length:], len(prompt)))
    if cut:
        log.warning(
            "%d of %d rows are longer than the model's %d positions: their prompts are scored without their beginning",
            cut,
            len(encoded),
            positions,
        )
    return fitted


def answer_lengths(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens of each row's answer, or of its rejected answer if that is longer, with the end token."""
    sides = [(place, answer) for place, row in enumerate(rows) for answer in (row.completion, row.rejected)]
    given = [(place, answer) for place, answer in sides if answer is not None]
    lengths = [0] * len(rows)
    encoded = encode_rows(tokenizer, [(rows[place].prompt, answer) for place, answer in given])
    for (place, _), (ids, prompt) in zip(given, encoded, strict=True):
        lengths[place] = max(lengths[place], len(ids) - prompt)
    return lengths


def answerable(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, positions: int | None
) -> tuple[list[Row], list[Quarantined]]:
    """The rows whose answers are shorter than the model's ``positions``, and the others."""
    if positions is None:
        return list(rows), []
    lengths = answer_lengths(rows, tokenizer)
    long = [
        Quarantined(row_name(row), f"an answer of more tokens than the model's {positions} positions")
        for row, length in zip(rows, lengths, strict=True)
        if length >= positions
    ]
    return [row for row, length in zip(rows, lengths, strict=True) if length < positions], long


def grouped(
    count: int, width: Callable[[int], int], order: Callable[[int], tuple[int, ...]], batch_tokens: int
) -> Iterator[list[int]]:
    """Indices 0..``count``-1 sorted by ``order``, in batches whose rows times widest row stay within ``batch_tokens``.

    A row wider than that goes alone.
    """
    batch: list[int] = []
    widest = 0
    for index in sorted(range(count), key=order):
        wider = max(widest, width(index))
        if batch and wider * (len(batch) + 1) > batch_tokens:
            yield batch
            batch, wider = [], width(index)
        batch.append(index)
        widest = wider
    if batch:
        yield batch
