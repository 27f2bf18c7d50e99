"""Token ids cut to the model's positions, and put into batches of similar length."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from loraloop.errors import DataError

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
