"""Forward and backward passes through the base, with the rows of all trials in each."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any

from loraloop.errors import TrainingError
from loraloop.records import Encoded
from loraloop.trainer.choices import Choices
from loraloop.trainer.fit import EVAL_BATCH
from loraloop.trainer.memory import unless_memory_runs_out
from loraloop.trainer.pack.batch import Batch, sums
from loraloop.trainer.pack.dropout_masks import Key
from loraloop.trainer.pack.stack import AdapterStack
from loraloop.trainer.pack.training_state import TrialState

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

FEW_LOGITS = 2**26
"""Logits of all trials in a pass over validation rows: 256 MiB in fp32."""


class PackSteps:
    """The passes of one pack.

    Args:
        model: The base, with ``stack`` attached.
        stack: The trials' adapters.
        choices: Rows of each trial in a pass, and its precision.
        pad: Token that fills up shorter rows.
        width: Trials in a pass. It is halved when memory does not suffice, which changes no result.
    """

    def __init__(self, model: PreTrainedModel, stack: AdapterStack, choices: Choices, pad: int, width: int) -> None:
        self.model, self.stack, self.choices, self.pad, self.width = model, stack, choices, pad, width

    def learn(self, trials: Sequence[TrialState]) -> None:
        """Compute each trial's gradient over the rows of its step, and note what each pass said of it.

        As in transformers' Trainer, a trial's loss is the mean over the tokens that it scores in the whole step.

        Raises:
            TrainingError: Memory does not suffice for one trial.
        """
        import torch

        self.model.train()
        self.stack.clear()
        rows = [trial.due for trial in trials]
        whole = torch.tensor([sum(row.scored for row in each) for each in rows], device=self.model.device)

        def learn(batch: Batch, trials_in: slice) -> Tensor:
            sums = self._run(batch)
            losses = sums[0] / whole[trials_in]
            self.stack.backward(losses.sum())
            counts = torch.tensor(batch.counts, device=self.model.device)
            return torch.stack([losses, *sums[1:] / counts]).detach()

        for micro in self._micro(rows):
            said = torch.cat(self._in_parts(micro, learn), 1).T.tolist()
            taking_part = [(trial, own) for trial, own in zip(trials, micro, strict=True) if own]
            for (loss, entropy, accuracy), (trial, own) in zip(said, taking_part, strict=True):
                trial.note(loss, entropy, accuracy, sum(len(row.input_ids) for row in own))

    def validate(self, rows: Sequence[Encoded], positions: Sequence[int], trials: int) -> list[list[float]]:
        """Loss, entropy and accuracy of each trial, over the batches that TRL's trainer would take.

        Its loss is a mean over batches by their rows, its metrics are means over batches. A batch is passed in one go
        where its logits are few, otherwise as a training step is: nothing is kept for a backward pass.

        Args:
            rows: The validation rows.
            positions: Of the trials to score, in order.
            trials: How many are in the pack.

        Raises:
            TrainingError: Memory does not suffice for one trial.
        """
        import torch

        self.model.eval()
        size = self.choices.micro_batch * EVAL_BATCH
        wholes = [rows[start : start + size] for start in range(0, len(rows), size)]
        means = []
        with torch.no_grad():
            for whole in wholes:
                scored = sum(row.scored for row in whole)
                few = scored * len(positions) * self.model.config.get_text_config().vocab_size <= FEW_LOGITS
                each = [whole if position in positions else [] for position in range(trials)]
                parts = [each] if few else self._micro(each)
                sums = [torch.cat(self._in_parts(part, lambda batch, _: self._run(batch)), 1) for part in parts]
                means.append(torch.stack(sums).sum(0) / scored)
        shares = torch.tensor([len(whole) / len(rows) for whole in wholes], device=self.model.device)
        stacked = torch.stack(means, -1)
        scores: list[list[float]] = torch.stack([stacked[0] @ shares, *stacked[1:].mean(-1)]).T.tolist()
        return scores

    def _micro(self, trials: Sequence[Sequence[Encoded]]) -> list[list[Sequence[Encoded]]]:
        """Each trial's rows in pieces of ``micro_batch``; a trial of fewer rows has nothing in the last ones."""
        size, most = self.choices.micro_batch, max(map(len, trials))
        return [[rows[start : start + size] for rows in trials] for start in range(0, most, size)]

    def _in_parts(self, trials: Sequence[Sequence[Encoded]], work: Callable[[Batch, slice], Tensor]) -> list[Tensor]:
        """What ``work`` says of the rows of ``width`` trials after ``width`` trials; those without rows are passed by.

        Trials in one pass have as many rows each: where one is at the end of its epoch and another is not, they pass
        one after the other.
        """
        states, done, start = self.stack.masks.states(), [], 0
        while start < len(trials):
            part = self._alike(trials, start)
            result = unless_memory_runs_out(partial(self._pass, trials, part, states, work)) if trials[start] else None
            if result is not None:
                done.append(result)
            elif trials[start]:
                self._narrow(part.stop - part.start)
                continue
            start = part.stop
        return done

    def _alike(self, trials: Sequence[Sequence[Encoded]], start: int) -> slice:
        stop = start + 1
        while stop < min(start + self.width, len(trials)) and len(trials[stop]) == len(trials[start]):
            stop += 1
        return slice(start, stop)

    def _pass(
        self,
        trials: Sequence[Sequence[Encoded]],
        part: slice,
        states: Mapping[Key, Tensor],
        work: Callable[[Batch, slice], Tensor],
    ) -> Tensor:
        batch = Batch.collate(trials[part], self.pad, self.model.device)
        rows, length = batch.ids.shape
        self.stack.part = part
        self.stack.masks.begin(rows // len(batch.counts), length, batch.lengths, part, states)
        return work(batch, part)

    def _narrow(self, trials: int) -> None:
        if trials == 1:
            raise TrainingError(
                f"memory does not suffice for a pass over {self.choices.micro_batch} rows of one trial: lower "
                "trainer.micro_batch, which changes no result, or trainer.max_length"
            )
        self.width = (trials + 1) // 2
        log.warning("memory did not suffice for %d trials in a pass: %d are passed at once now", trials, self.width)

    def _run(self, batch: Batch) -> Tensor:
        with self._autocast():
            return sums(self.model, batch)

    def _autocast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.model.device.type, torch.bfloat16, enabled=self.choices.bf16)
