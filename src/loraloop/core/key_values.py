"""Keys and values of the tokens that were read, written in place."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    Columns = slice | Tensor

SPARE = 64
"""Columns that are made ahead: a new token's keys are written beside the others, which are not copied for it."""


@cache
def growing_layer() -> type[Any]:
    """The class of one layer's keys and values; transformers asks for one of its own, and is imported for it."""
    import torch
    from transformers.cache_utils import DynamicLayer

    class GrowingLayer(DynamicLayer):
        """Keys and values, ``[rows, heads, columns, size]``: views of tensors with columns to spare."""

        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)  # type: ignore[no-untyped-call]
            self._all_keys = self._all_values = torch.empty(0)
            self._room = 0

        def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
            """Add columns; returns the keys and values of all."""
            if not self.is_initialized:
                self.hold(key_states[:, :, :0], value_states[:, :, :0], 0)
            old_keys: Any = self.keys
            old_values: Any = self.values
            used, more = old_keys.shape[2], key_states.shape[2]
            end = used + more
            if end > self._room:
                self.hold(_wider(old_keys, end + SPARE), _wider(old_values, end + SPARE), used)
            self._all_keys.narrow(2, used, more).copy_(key_states)
            self._all_values.narrow(2, used, more).copy_(value_states)
            self.keys, self.values = self._all_keys.narrow(2, 0, end), self._all_values.narrow(2, 0, end)
            return self.keys, self.values

        def hold(self, keys: Tensor, values: Tensor, used: int) -> None:
            """Take the first ``used`` columns of these tensors, and the others as spare ones."""
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self._all_keys, self._all_values, self._room = keys, values, keys.shape[2]
            self.keys, self.values = keys.narrow(2, 0, used), values.narrow(2, 0, used)

    return GrowingLayer


def empty() -> Any:
    """Keys and values of no token, a ``transformers.Cache``."""
    from transformers import Cache

    return Cache(layer_class_to_replicate=growing_layer())


def select(cache: Any, rows: Tensor, columns: Columns) -> None:
    """Keep some rows and columns."""
    for layer in cache.layers:
        kept = [state[:, :, columns].index_select(0, rows) for state in (layer.keys, layer.values)]
        layer.hold(*kept, kept[0].shape[2])


def add_rows(cache: Any, more: Any) -> None:
    """Put the rows of ``more`` under those of ``cache``; the shorter ones get zeros on their left."""
    for layer, other in zip(cache.layers, more.layers, strict=True):
        keys, values = _stacked(layer.keys, other.keys), _stacked(layer.values, other.values)
        layer.hold(keys, values, keys.shape[2] - SPARE)


def row_of(cache: Any, row: int, columns: Columns) -> Tensor | None:
    """One row's keys and values, ``[2 * layers, heads, columns, size]``; ``None`` where layers differ in shape."""
    import torch

    states = [state[row][:, columns] for layer in cache.layers for state in (layer.keys, layer.values)]
    if len({(state.shape, state.dtype, state.device) for state in states}) > 1:
        return None
    return torch.stack(states)


def of_rows(rows: Sequence[Sequence[Tensor]], columns: int) -> Any:
    """Keys and values of rows that :func:`row_of` gave in parts, each with zeros on its left up to ``columns``."""
    first = rows[0][0]
    layers, heads, _, size = first.shape
    all_rows = first.new_zeros((layers, len(rows), heads, columns + SPARE, size))
    for row, parts in enumerate(rows):
        at = columns - sum(part.shape[2] for part in parts)
        for part in parts:
            all_rows[:, row].narrow(2, at, part.shape[2]).copy_(part)
            at += part.shape[2]
    made = empty()
    for keys, values in zip(all_rows[::2], all_rows[1::2], strict=True):
        layer = growing_layer()()
        layer.hold(keys, values, columns)
        made.layers.append(layer)
    return made


def _wider(state: Tensor, columns: int) -> Tensor:
    made = state.new_empty((*state.shape[:2], columns, state.shape[3]))
    made.narrow(2, 0, state.shape[2]).copy_(state)
    return made


def _stacked(state: Tensor, more: Tensor) -> Tensor:
    """Rows of both, right-aligned, with spare columns behind."""
    rows, width = state.shape[0], max(state.shape[2], more.shape[2])
    made = state.new_zeros((rows + more.shape[0], state.shape[1], width + SPARE, state.shape[3]))
    made[:rows].narrow(2, width - state.shape[2], state.shape[2]).copy_(state)
    made[rows:].narrow(2, width - more.shape[2], more.shape[2]).copy_(more)
    return made
