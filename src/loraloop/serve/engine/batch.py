"""The answers that are being generated together, and their key-value cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loraloop.serve.engine.lora import AdapterStack

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import Cache, PreTrainedModel

    from loraloop.serve.engine.generation import Generation
    from loraloop.serve.engine.lora import LoraAdapter


class LoraBatch:
    """Rows of one cache, padded on the left to the longest; a row joins or leaves between two tokens.

    All rows that join at the same boundary are read in one pass, while the others wait for it. Each row has its own
    positions and mask, so its logits are those that it would have alone.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model: Any = model
        self._device: torch.device = model.device
        self._plain_mask = model.config._attn_implementation == "sdpa"
        self.stack = AdapterStack(model)
        self.rows: list[Generation] = []
        self._assigned = False
        self._cache: Any = None
        self._mask: Any = None

    def join(self, rows: Sequence[Generation]) -> Tensor:
        """Read the prompts of ``rows`` and add them; returns the logits ``[rows, vocabulary]`` of their next tokens."""
        self.stack.hold([row.adapter for row in [*self.rows, *rows]])
        self._assigned = False
        cache, mask, logits = self._read([row.prompt for row in rows], [row.adapter for row in rows])
        self._merge(cache, mask)
        self.rows.extend(rows)
        return logits

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
        self, prompts: Sequence[list[int]], adapters: Sequence[LoraAdapter | None]
    ) -> tuple[Cache, Tensor, Tensor]:
        """Cache, mask and last logits of prompts, left-padded; the stack must hold their adapters."""
        import torch
        from transformers import DynamicCache

        self.stack.assign(adapters)
        longest = max(map(len, prompts))
        gaps = [longest - len(prompt) for prompt in prompts]
        ids = torch.tensor([[0] * gap + prompt for gap, prompt in zip(gaps, prompts, strict=True)], device=self._device)
        place = torch.arange(longest, device=self._device)
        offset = torch.tensor(gaps, device=self._device)[:, None]
        mask = place >= offset
        cache = DynamicCache()
        output = self._model(
            input_ids=ids,
            attention_mask=mask.long() if any(gaps) else None,
            position_ids=(place - offset).clamp_min(0),
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
            self._assigned = True
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=True)
        output = self._model(
            input_ids=torch.tensor([[row.last] for row in self.rows], device=self._device),
            attention_mask=self._attention(self._mask),
            position_ids=torch.tensor([[row.cached] for row in self.rows], device=self._device),
            past_key_values=self._cache,
            use_cache=True,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def drop(self, gone: Sequence[Generation]) -> None:
        """Remove rows."""
        import torch

        kept = [index for index, row in enumerate(self.rows) if row not in gone]
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in kept]
        self._assigned = False
        if not kept:
            self.clear()
            return
        chosen = torch.tensor(kept, device=self._device)
        self._cache.batch_select_indices(chosen)
        self._mask = self._mask[chosen]
        self._trim()

    def clear(self) -> None:
        """Remove every row, and leave the model as it was."""
        self.rows, self._cache, self._mask = [], None, None
        self.stack.clear()

    def _trim(self) -> None:
        """Cut the columns that are padding in every row."""
        spare = int(self._mask.any(0).long().argmax())
        if spare:
            self._mask = self._mask[:, spare:]
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys[:, :, spare:], layer.values[:, :, spare:]

    def _attention(self, mask: Tensor) -> Tensor | None:
        if len({row.cached for row in self.rows}) == 1:
            return None
        # With this mask transformers builds none itself in every step, an eighth of the tiny model's time.
        return mask[:, None, None, :] if self._plain_mask else mask.long()

    def _merge(self, cache: Cache, mask: Tensor) -> None:
        import torch

        if self._cache is None:
            self._cache, self._mask = cache, mask
            return
        gap = mask.shape[1] - self._mask.shape[1]
        before, after = max(gap, 0), max(-gap, 0)
        pad = torch.nn.functional.pad
        self._mask = torch.cat([pad(self._mask, (before, 0)), pad(mask, (after, 0))])
        for ours, new in zip(self._cache.layers, cache.layers, strict=True):
            for name in ("keys", "values"):
                old, more = getattr(ours, name), getattr(new, name)
                setattr(ours, name, torch.cat([pad(old, (0, 0, before, 0)), pad(more, (0, 0, after, 0))]))
