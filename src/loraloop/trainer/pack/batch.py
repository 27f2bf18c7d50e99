"""Rows of several trials in one forward pass, and what it says of each trial."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loraloop.core.tokens import IGNORED
from loraloop.records import Encoded
from loraloop.trainer.scoring import entropies, scored_logits

if TYPE_CHECKING:
    from torch import Tensor
    from torch import device as Device
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Batch:
    """The rows of every trial, one trial after the other, padded to one length.

    Attributes:
        scored: ``[rows, length - 1]``: whether the next token is one that the loss falls on.
        positions: Where those predictions are made, as indices into ``rows * length``.
        targets: The tokens at the scored positions, in order.
        counts: Scored tokens of each trial.
        lengths: Longest row of each trial, to which its batch would be padded alone.
        tokens: Tokens of each trial, padding excluded.
    """

    ids: Tensor
    attention: Tensor
    scored: Tensor
    positions: Tensor
    targets: Tensor
    counts: list[int]
    lengths: list[int]
    tokens: list[int]

    @classmethod
    def collate(cls, trials: Sequence[Sequence[Encoded]], pad: int, device: Device) -> Batch:
        """Put together as many rows of each trial."""
        import torch
        from torch.nn import functional
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
            positions=functional.pad(scored, (0, 1)).flatten().nonzero()[:, 0].to(device),
            targets=labels[scored].to(device),
            counts=scored.view(len(trials), -1).sum(1).tolist(),
            lengths=sizes.view(len(trials), -1).amax(1).tolist(),
            tokens=sizes.view(len(trials), -1).sum(1).tolist(),
        )

    def tensors(self) -> dict[str, Tensor]:
        """The fields that lie on the device."""
        return {name: getattr(self, name) for name in ("ids", "attention", "scored", "positions", "targets")}


def sums(model: PreTrainedModel, batch: Batch) -> Tensor:
    """Negative log-likelihood, entropy and right guesses of each trial, summed over scored tokens: ``[3, trials]``."""
    shown = {"input_ids": batch.ids, "attention_mask": batch.attention}
    logits = scored_logits(model, model.get_output_embeddings(), shown, batch.positions)
    return _sums(logits.log_softmax(-1), batch)


def _sums(log_probs: Tensor, batch: Batch) -> Tensor:
    import torch

    likelihood = log_probs.gather(-1, batch.targets[:, None])[:, 0]
    right = (log_probs.argmax(-1) == batch.targets).to(log_probs.dtype)
    places = batch.scored.expand(3, *batch.scored.shape)
    values = torch.stack([-likelihood, entropies(log_probs), right])
    dense = values.new_zeros(places.shape).masked_scatter(places, values)
    return dense.view(3, len(batch.counts), -1).sum(-1)
