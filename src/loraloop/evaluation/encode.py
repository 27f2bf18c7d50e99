"""Rows as token ids, exactly as they are trained on, in batches of similar length."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from loraloop.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)


def encode(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> tuple[list[int], int]:
    """Token ids of ``prompt + completion`` with the end token, and how many of them belong to the prompt.

    The same ids as TRL 1.16 trains on (``SFTTrainer``, prompt and completion columns of plain text): the end
    token's text is appended unless the completion ends with it, prompt and completion are tokenised together, and
    the completion begins where the tokenised prompt alone and the whole diverge.

    Raises:
        DataError: The tokenizer has no end token.
    """
    end = tokenizer.eos_token
    if end is None:
        raise DataError(f"{tokenizer.name_or_path or 'the tokenizer'} has no end token: set its eos_token")
    whole = completion if completion.endswith(end) else completion + end
    ids: list[int] = tokenizer(prompt + whole)["input_ids"]
    alone: list[int] = tokenizer(prompt)["input_ids"]
    pairs = zip(alone, ids, strict=False)
    length = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(alone), len(ids)))
    return ids, length


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

    Raises:
        DataError: A completion alone is longer than the model's positions.
    """
    if positions is None:
        return list(encoded)
    fitted, cut = [], 0
    for number, (ids, length) in enumerate(encoded):
        completion = len(ids) - length
        if completion >= positions:
            raise DataError(
                f"held-out row {number}: its completion has {completion} tokens, the model has {positions} positions; "
                "drop or split such rows, or use a model with more positions"
            )
        prompt = shorten(ids[:length], positions - completion, start)
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
