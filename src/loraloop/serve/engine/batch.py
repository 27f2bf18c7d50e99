"""The answers that are being generated together, and their key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loraloop.core import key_values
from loraloop.serve.engine.lora import AdapterStack
from loraloop.serve.engine.prefix_cache import PrefixCache

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import Cache, PreTrainedModel

    from loraloop.serve.engine.generation import Generation
    from loraloop.serve.engine.lora import LoraAdapter


AHEAD = 64
"""Columns that a mask is made longer by at once."""


class LoraBatch:
    """Rows of one cache, padded on the left to the longest; a row joins or leaves between two tokens.

    All rows that join at the same boundary are read while the others wait: in one pass those of which nothing is known,
    and in another one those that begin as an earlier answer of their adapter and scope did, from there on. Each row has
    its own positions and mask, so its logits are those that it would have alone.

    Args:
        model: In evaluation mode.
        prefixes: Where the keys and values of a row are kept when it leaves.
    """

    def __init__(self, model: PreTrainedModel, prefixes: PrefixCache) -> None:
        self._model: Any = model
        self._device: torch.device = model.device
        self._plain_mask = model.config._attn_implementation == "sdpa"
        self.stack = AdapterStack(model)
        self.prefixes = prefixes
        self.rows: list[Generation] = []
        self._assigned = False
        self._cache: Any = None
        self._mask: Tensor | None = None
        self._places: Any = None

    def join(self, rows: Sequence[Generation]) -> Tensor:
        """Read the prompts of ``rows`` and add them; returns the logits ``[rows, vocabulary]`` of their next tokens."""
        import torch

        self.stack.hold([row.adapter for row in [*self.rows, *rows]])
        self._assigned = False
        found = [self.prefixes.find(_owner(row), row.prompt) for row in rows]
        order: list[int] = []
        passes = []
        for begun in (False, True):
            chosen = [index for index, past in enumerate(found) if bool(past) == begun]
            new, past = [rows[index] for index in chosen], [found[index] for index in chosen]
            if chosen:
                passes.append((new, self._read([row.prompt for row in new], [row.adapter for row in new], past)))
                order.extend(chosen)
        for new, (cache, mask, _) in passes:
            self._merge(new, cache, mask)
        for row, blocks in zip(rows, found, strict=True):
            row.reused = sum(block.shape[2] for block in blocks)
        back = torch.tensor(order, device=self._device).argsort()
        return torch.cat([logits for _, (_, _, logits) in passes])[back]

    def probe(self, prompt: list[int], adapter: LoraAdapter) -> tuple[Tensor, Tensor]:
        """Last logits of a prompt with the base and with an adapter; the rows are as they were afterwards."""
        self.stack.hold([*(row.adapter for row in self.rows), adapter])
        self._assigned = False
        try:
            base, adapted = self._read([prompt, prompt], [None, adapter])[2]
        finally:
            self.stack.hold([row.adapter for row in self.rows])
        return base, adapted

    def score(self, prompt: list[int], adapter: LoraAdapter | None) -> Tensor:
        """The logits ``[tokens, vocabulary]`` after each token of a prompt; the rows are as they were afterwards."""
        import torch

        self.stack.hold([*(row.adapter for row in self.rows), adapter])
        self._assigned = False
        try:
            self.stack.assign([adapter])
            output = self._model(input_ids=torch.tensor([prompt], device=self._device), use_cache=False)
        finally:
            self.stack.hold([row.adapter for row in self.rows])
        logits: Tensor = output.logits[0]
        return logits

    def _read(
        self,
        prompts: Sequence[list[int]],
        adapters: Sequence[LoraAdapter | None],
        past: Sequence[Sequence[Tensor]] = (),
    ) -> tuple[Cache, Tensor, Tensor]:
        """Cache, mask and last logits of prompts; the stack must hold their adapters.

        Args:
            prompts: Their tokens.
            adapters: Of each prompt.
            past: The keys and values of the first tokens of each prompt, where there are any.
        """
        import torch

        self.stack.assign(adapters)
        known = [sum(part.shape[2] for part in parts) for parts in past] or [0] * len(prompts)
        before, behind = max(known), max(len(prompt) - size for prompt, size in zip(prompts, known, strict=True))
        cache = key_values.of_rows(past, before) if before else key_values.empty()
        new = [prompt[size:] for prompt, size in zip(prompts, known, strict=True)]
        ids = torch.tensor([[0] * (behind - len(each)) + each for each in new], device=self._device)
        begin = torch.tensor(known, device=self._device)[:, None]
        offset = torch.tensor([behind - len(each) for each in new], device=self._device)[:, None]
        place = torch.arange(behind, device=self._device)
        mask = torch.cat([torch.arange(before, device=self._device) >= before - begin, place >= offset], dim=1)
        output = self._model(
            input_ids=ids,
            attention_mask=None if bool(mask.all()) else mask.long(),
            position_ids=begin + (place - offset).clamp_min(0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        return cache, mask, output.logits[:, -1]

    def step(self) -> Tensor:
        """Read the newest token of every row; returns the logits of the next."""
        import torch

        if not self._assigned:
            adapters = [row.adapter for row in self.rows]
            self.stack.hold(adapters)
            self.stack.assign(adapters)
            self._places = torch.tensor([[row.cached] for row in self.rows], device=self._device)
            self._assigned = True
        output = self._model(
            input_ids=torch.tensor([[row.last] for row in self.rows], device=self._device),
            attention_mask=self._attention(),
            position_ids=self._places,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._places += 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def drop(self, gone: Sequence[Generation]) -> None:
        """Remove rows; the prefix cache keeps what was read for them."""
        import torch

        kept = [index for index, row in enumerate(self.rows) if row not in gone]
        if len(kept) == len(self.rows):
            return
        for index, row in enumerate(self.rows):
            if index not in kept:
                self._keep(index, row)
        if not kept:
            self.clear()
            return
        chosen = torch.tensor(kept, device=self._device)
        mask = self._columns()[chosen]
        self.rows = [self.rows[index] for index in kept]
        self._assigned = False
        used = mask.any(0)
        columns: Any = slice(None) if bool(used.all()) else used.nonzero()[:, 0]
        key_values.select(self._cache, chosen, columns)
        self._hold_mask(mask[:, columns])

    def clear(self) -> None:
        """Remove every row, and leave the model as it was."""
        self.rows, self._cache, self._mask = [], None, None
        self.stack.clear()

    def _keep(self, index: int, row: Generation) -> None:
        """Put the tokens of a row that the model has read into the prefix cache."""

        def read(begin: int, end: int) -> Tensor | None:
            if self._mask is None:
                return key_values.row_of(self._cache, index, slice(begin, end))
            return key_values.row_of(self._cache, index, self._columns()[index].nonzero()[begin:end, 0])

        self.prefixes.keep(_owner(row), row.tokens[: row.cached], read)

    def _columns(self, more: int = 0) -> Tensor:
        """Which columns hold a token of a row, ``[rows, columns]``; the ``more`` to come do in every row."""
        import torch

        width = self._cache.get_seq_length() + more
        if self._mask is None:
            return torch.ones((len(self.rows), width), dtype=torch.bool, device=self._device)
        if self._mask.shape[1] < width:
            ahead = self._mask.new_ones((len(self.rows), width - self._mask.shape[1] + AHEAD))
            self._mask = torch.cat([self._mask, ahead], dim=1)
        return self._mask[:, :width]

    def _hold_mask(self, mask: Tensor) -> None:
        self._mask = None if bool(mask.all()) else mask

    def _attention(self) -> Tensor | None:
        if self._mask is None:
            return None
        mask = self._columns(1)
        # With this mask transformers builds none itself in every step, an eighth of the tiny model's time.
        return mask[:, None, None, :] if self._plain_mask else mask.long()

    def _merge(self, rows: Sequence[Generation], cache: Cache, mask: Tensor) -> None:
        import torch

        if self._cache is None:
            self._cache = cache
        else:
            ours = self._columns()
            key_values.add_rows(self._cache, cache)
            width = max(ours.shape[1], mask.shape[1])
            mask = torch.cat([torch.nn.functional.pad(each, (width - each.shape[1], 0)) for each in (ours, mask)])
        self.rows.extend(rows)
        self._hold_mask(mask)


def _owner(row: Generation) -> tuple[int, str | None]:
    """Who else may use the keys and values of a row: the same adapter in memory, for the same scope."""
    return row.adapter.serial if row.adapter else 0, row.request.cache_scope
