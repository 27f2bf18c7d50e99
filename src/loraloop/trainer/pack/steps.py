"""Forward and backward passes through the base, with the rows of all trials in each."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from loraloop.records import Encoded
from loraloop.trainer.choices import Choices
from loraloop.trainer.fit import EVAL_BATCH
from loraloop.trainer.pack.batch import Batch, Sums
from loraloop.trainer.pack.stack import AdapterStack
from loraloop.trainer.pack.training_state import TrialState

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class PackSteps:
    """The passes of one pack.

    Args:
        model: The base, with ``stack`` attached.
        stack: The trials' adapters.
        sums: Computes what a batch says of each trial.
        choices: Rows of a pass, and its precision.
        pad: Token that fills up shorter rows.
    """

    def __init__(self, model: PreTrainedModel, stack: AdapterStack, sums: Sums, choices: Choices, pad: int) -> None:
        self.model, self.stack, self.sums, self.choices, self.pad = model, stack, sums, choices, pad

    def learn(self, trials: Sequence[TrialState], part: slice) -> None:
        """Compute each trial's gradient over a part of its rows, and note what each pass said of it.

        As in transformers' Trainer, a trial's loss is the mean over the tokens that it scores in the whole step.
        """
        import torch

        self.model.train()
        self.stack.clear()
        batches = [self._batch(rows) for rows in self._micro([trial.rows[part] for trial in trials])]
        scored = torch.tensor([batch.counts for batch in batches], device=self.model.device)
        for batch, count in zip(batches, scored, strict=True):
            sums = self._run(batch)
            losses = sums[0] / scored.sum(0)
            self.stack.backward(losses.sum())
            said = torch.stack([losses, *sums[1:] / count]).detach().T.tolist()
            for trial, (loss, entropy, accuracy), tokens in zip(trials, said, batch.tokens, strict=True):
                trial.note(loss, entropy, accuracy, tokens)

    def validate(self, rows: Sequence[Encoded], trials: int) -> list[list[float]]:
        """Loss, entropy and accuracy of each trial, over the batches that TRL's trainer would take.

        Its loss is a mean over batches by their rows, its metrics are means over batches. A batch is passed in parts.
        """
        import torch

        self.model.eval()
        self.stack.masks.iterate()
        size = self.choices.micro_batch * EVAL_BATCH
        wholes = [rows[start : start + size] for start in range(0, len(rows), size)]
        means = []
        with torch.no_grad():
            for whole in wholes:
                parts = [self._batch(part) for part in self._micro([whole] * trials)]
                sums = torch.stack([self._run(part) for part in parts]).sum(0)
                means.append(sums / sum(part.counts[0] for part in parts))
        shares = torch.tensor([len(whole) / len(rows) for whole in wholes], device=self.model.device)
        stacked = torch.stack(means, -1)
        scores: list[list[float]] = torch.stack([stacked[0] @ shares, *stacked[1:].mean(-1)]).T.tolist()
        return scores

    def _micro(self, trials: Sequence[Sequence[Encoded]]) -> list[list[Sequence[Encoded]]]:
        size = self.choices.micro_batch
        return [[rows[start : start + size] for rows in trials] for start in range(0, len(trials[0]), size)]

    def _batch(self, trials: Sequence[Sequence[Encoded]]) -> Batch:
        return Batch.collate(trials, self.pad, self.model.device)

    def _run(self, batch: Batch) -> Tensor:
        rows, length = batch.ids.shape
        self.stack.masks.begin(rows // len(batch.counts), length, batch.lengths)
        with self._autocast():
            return self.sums(batch)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.choices.bf16)
