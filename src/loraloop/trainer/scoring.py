"""A causal model's logits at the positions that the loss falls on, and at no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ENTROPY_ROWS = 256  # logits whose entropy is computed at once: more take memory and are no faster


def scored_logits(model: Any, head: Any, inputs: dict[str, Tensor], positions: Tensor) -> Tensor:
    """Logits ``[positions, vocabulary]`` in fp32.

    Args:
        model: Called with ``inputs``; it may wrap the model that ``head`` belongs to.
        head: The module that projects hidden states to logits.
        inputs: Token ids and attention mask, ``[rows, length]``.
        positions: Indices into ``rows * length``.
    """

    def choose(module: Any, hidden: tuple[Tensor, ...]) -> Tensor:
        return hidden[0].flatten(0, 1)[positions][None]

    handle = head.register_forward_pre_hook(choose)
    try:
        logits: Tensor = model(**inputs, use_cache=False).logits[0].float()
    finally:
        handle.remove()
    return logits


def entropies(log_probs: Tensor) -> Tensor:
    """Entropy of each row of ``[tokens, vocabulary]``, without a gradient."""
    import torch

    parts = log_probs.detach().split(ENTROPY_ROWS)
    return torch.cat([-(part.exp() * part).sum(-1) for part in parts])
