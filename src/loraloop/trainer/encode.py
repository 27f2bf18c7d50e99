"""Rows to tokens and labels, by the rule of TRL's SFTTrainer for prompt and completion columns; which rows fit."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloop.core import tokens
from loraloop.core.tokens import IGNORED
from loraloop.errors import TrainingError
from loraloop.records import Encoded, Fitting, Quarantined, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LEFT_OUT_SHARE = 0.5
"""Share of the rows that may be too long; with more of them the setting is wrong, not the rows."""
KEPT = 4  # rows to train on and to validate with, by the tokenizers of a base's shape and of the base
WORDS = 40

log = logging.getLogger(__name__)


# The rows and tokenizers are kept so that no other object takes their ids.
_kept: dict[tuple[int, int], tuple[object, object, list[Encoded]]] = {}


def encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    """Tokenise rows by the rule of :mod:`loraloop.core.tokens`, and label their completions.

    The same tuple of rows with the same tokenizer is tokenised once: an estimate and every trial of a sweep ask again.

    Args:
        rows: Prompt and completion; the tokenizer adds its own first token.
        tokenizer: With an end token.

    Raises:
        DataError: The tokenizer has no end token.
    """
    if not isinstance(rows, tuple):
        return _encode(rows, tokenizer)
    key = (id(rows), id(tokenizer))
    if key not in _kept:
        while len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = (rows, tokenizer, _encode(rows, tokenizer))
    return _kept[key][2]


def _encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase) -> list[Encoded]:
    return [
        Encoded(whole, [IGNORED] * start + whole[start:])
        for whole, start in tokens.encode_rows(tokenizer, [(row.prompt, row.completion) for row in rows])
    ]


def fit_rows(rows: Sequence[Row], sides: Sequence[list[Encoded]], max_length: int, name: str) -> Fitting:
    """The rows whose tokens fit whole: an answer is never cut, because the model would learn not to end it.

    Args:
        rows: Named where they are left out.
        sides: For each row its tokens, once or twice.
        max_length: Tokens per row and side.
        name: What the rows are for, for the message.

    Raises:
        TrainingError: Most of the rows are too long.
    """
    longest = [max(len(side.input_ids) for side in each) for each in zip(*sides, strict=True)]
    fit = [index for index, length in enumerate(longest) if length <= max_length]
    long = [index for index, length in enumerate(longest) if length > max_length]
    if len(long) > LEFT_OUT_SHARE * len(longest):
        raise TrainingError(
            f"{len(long)} of {len(longest)} {name} rows have more tokens than trainer.max_length={max_length}, and an "
            f"answer is never cut: raise trainer.max_length ({max(longest)} takes all of them) or shorten the prompts"
        )
    reason = f"more tokens than trainer.max_length={max_length}"
    left_out = tuple(Quarantined(row_name(rows[index]), reason) for index in long)
    return Fitting([rows[index] for index in fit], tuple([side[index] for index in fit] for side in sides), left_out)


def by_length(rows: Sequence[Encoded]) -> list[Encoded]:
    """The rows from the shortest to the longest, so that batches of them need little padding."""
    return sorted(rows, key=lambda row: len(row.input_ids))


def warn(fitting: Fitting, name: str) -> None:
    """Log how many rows are left out, by reason; ``name`` says what they are for."""
    for reason, count in Counter(each.reason for each in fitting.left_out).items():
        first = next(each.item for each in fitting.left_out if each.reason == reason)
        log.warning("%d %s rows are left out, the first is %s: %s", count, name, first, reason)


def row_name(row: Row) -> str:
    """What a person finds a row by: its image, its session, or its number in the source and its first words."""
    made = row.example.provenance
    begins = " ".join(row.example.input.split())
    words = begins if len(begins) <= WORDS else f"{begins[:WORDS]}..."
    return made.image_path or made.session_id or f"row {made.index} ({words!r})"
