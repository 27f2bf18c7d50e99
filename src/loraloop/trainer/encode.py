"""Rows to tokens and labels, by the rule of TRL's SFTTrainer for prompt and completion columns."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loraloop.core import tokens
from loraloop.core.tokens import IGNORED
from loraloop.errors import TrainingError
from loraloop.records import Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MASKED_SHARE = 0.01
SHOWN = 3
KEPT = 4  # rows to train on and to validate with, by the tokenizers of a base's shape and of the base

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Encoded:
    """A row as tokens.

    Attributes:
        labels: The tokens that the loss falls on, -100 elsewhere.
        prompt: Tokens of the prompt, before the cut to the maximal length.
        whole: Tokens of prompt and completion, before the cut.
    """

    input_ids: list[int]
    labels: list[int]
    prompt: int
    whole: int

    @property
    def trainable(self) -> bool:
        """Whether the loss falls on any token (the first is never predicted)."""
        return any(label != IGNORED for label in self.labels[1:])


# The rows and tokenizers are kept so that no other object takes their ids.
_kept: dict[tuple[int, int, int], tuple[object, object, list[Encoded]]] = {}


def encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Encoded]:
    """Tokenise rows by the rule of :mod:`loraloop.core.tokens`, label their completions, and cut them at the end.

    The same tuple of rows with the same tokenizer is tokenised once: an estimate and every trial of a sweep ask again.

    Args:
        rows: Prompt and completion; the tokenizer adds its own first token.
        tokenizer: With an end token.
        max_length: Tokens per row.

    Raises:
        DataError: The tokenizer has no end token.
    """
    if not isinstance(rows, tuple):
        return _encode(rows, tokenizer, max_length)
    key = (id(rows), id(tokenizer), max_length)
    if key not in _kept:
        while len(_kept) >= KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = (rows, tokenizer, _encode(rows, tokenizer, max_length))
    return _kept[key][2]


def _encode(rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase, max_length: int) -> list[Encoded]:
    encoded = []
    for whole, start in tokens.encode_rows(tokenizer, [(row.prompt, row.completion) for row in rows]):
        labels = [IGNORED] * start + whole[start:]
        encoded.append(Encoded(whole[:max_length], labels[:max_length], start, len(whole)))
    return encoded


def trainable(encoded: Sequence[Encoded], max_length: int, name: str = "training") -> list[int]:
    """Indices of the rows that have a token to train on; a few without one are left out with a warning.

    Raises:
        TrainingError: More than 1% of the rows have none: their loss would read 0.0 and teach nothing.
    """
    kept = [index for index, row in enumerate(encoded) if row.trainable]
    masked = sorted(set(range(len(encoded))) - set(kept))
    cut = sum(row.whole > max_length for row in encoded)
    if len(masked) > MASKED_SHARE * len(encoded):
        shown = ", ".join(map(str, masked[:SHOWN])) + (", ..." if len(masked) > SHOWN else "")
        raise TrainingError(
            f"{len(masked)} of {len(encoded)} {name} rows (rows {shown}) have no token to train on within "
            f"trainer.max_length={max_length}: their prompts fill it. At most {MASKED_SHARE:.0%} may; "
            f"raise trainer.max_length above {max(row.prompt for row in encoded)} or shorten the prompts"
        )
    if masked or cut:
        log.warning(
            "%d %s rows lose their end at trainer.max_length=%d, %d are left out", cut, name, max_length, len(masked)
        )
    return kept
