"""Rows of several trials in one forward pass, and what it says of each trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraloop.core.tokens import IGNORED
from loraloop.records import Encoded

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as Device
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of every trial, one trial after the other, padded to one length.

    Attributes:
        scored: ``[rows, length - 1]``: whether the next token is one that the loss falls on.
        targets: The tokens at the scored positions, in order.
        counts: Scored tokens of each trial.
        lengths: Longest row of each trial, to which its batch would be padded alone.
        tokens: Tokens of each trial, padding excluded.
    """

    ids: Tensor
    attention: Tensor
    scored: Tensor
    targets: Tensor
    counts: list[int]
    lengths: list[int]
    tokens: list[int]

    @classmethod
    def collate(cls, trials: Sequence[Sequence[Encoded]], pad: int, device: Device) -> Batch:
        """Put together as many rows of each trial."""
        import torch
        from torch.nn.utils.rnn import pad_sequence

        rows = [row for trial in trials for row in trial]
        ids = pad_sequence([torch.tensor(row.input_ids) for row in rows], batch_first=True, padding_value=pad)
        labels = pad_sequence([torch.tensor(row.labels) for row in rows], batch_first=True, padding_value=IGNORED)[
            :, 1:
        ]
        sizes = torch.tensor([len(row.input_ids) for row in rows])
        attention = (torch.arange(ids.shape[1]) < sizes[:, None]).long()
        scored = labels != IGNORED
        return cls(
            ids=ids.to(device),
            attention=attention.to(device),
            scored=scored.to(device),
            targets=labels[scored].to(device),
            counts=scored.view(len(trials), -1).sum(1).tolist(),
            lengths=sizes.view(len(trials), -1).amax(1).tolist(),
            tokens=sizes.view(len(trials), -1).sum(1).tolist(),
        )


Sums = Callable[[Batch], "Tensor"]
"""Negative log-likelihood, entropy and right guesses of each trial, summed over scored tokens: ``[3, trials]``."""


@contextmanager
def scoring(model: PreTrainedModel) -> Iterator[Sums]:
    """Within the context, the function given runs ``model`` and projects the scored positions alone to logits."""
    chosen: list[Tensor] = []

    def choose(head: Any, inputs: tuple[Tensor, ...]) -> Tensor:
        return inputs[0][:, :-1][chosen.pop()][None]

    def sums(batch: Batch) -> Tensor:
        chosen.append(batch.scored)
        logits = model(input_ids=batch.ids, attention_mask=batch.attention, use_cache=False).logits
        return _sums(logits[0].float().log_softmax(-1), batch)

    handle = model.get_output_embeddings().register_forward_pre_hook(choose)
    try:
        yield sums
    finally:
        handle.remove()


def _sums(log_probs: Tensor, batch: Batch) -> Tensor:
    import torch

    likelihood = log_probs.gather(-1, batch.targets[:, None])[:, 0]
    fixed = log_probs.detach()
    entropy = -(fixed.exp() * fixed).sum(-1)
    right = (fixed.argmax(-1) == batch.targets).to(fixed.dtype)
    places = batch.scored.expand(3, *batch.scored.shape)
    values = torch.stack([-likelihood, entropy, right])
    dense = values.new_zeros(places.shape).masked_scatter(places, values)
    return dense.view(3, len(batch.counts), -1).sum(-1)
