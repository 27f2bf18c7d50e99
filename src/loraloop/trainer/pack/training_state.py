"""One trial while it trains: its own optimizer, schedule, row order, metrics and outcome."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from loraloop.errors import TrainingError
from loraloop.records import Encoded, FrozenMap
from loraloop.trainer.pack.adapter import Adapter
from loraloop.trainer.pack.dropout_masks import Key
from loraloop.trainer.pack.packed_trial import PackedTrial
from loraloop.trainer.sampler import LengthGrouped

if TYPE_CHECKING:
    from torch import Tensor


class TrialState:
    """A trial of a running pack.

    Args:
        packed: What is trained.
        adapter: What it starts from.
        steps: Optimizer steps of the whole training.
        began: Step of the pack at which it began; trials that began together draw the same dropout masks.

    Attributes:
        done: Optimizer steps that it has taken.
        due: Rows of its next step.
        seconds: Its share of the time that the pack trained.
        tokens: Tokens that it was trained on, padding excluded.
        history: What was logged.
    """

    def __init__(self, packed: PackedTrial, adapter: Adapter, steps: int, began: int) -> None:
        self.packed, self.adapter, self.steps, self.done = packed, adapter, steps, 0
        self.key: Key = (packed.settings.seed, packed.lora.dropout, began)
        self.due: Sequence[Encoded] = ()
        self._order: list[Encoded] = []
        self.seconds, self.tokens = 0.0, 0
        self.history: list[FrozenMap] = []
        self._last: dict[str, float] = {}
        self._forget()
        self._prepare(steps)

    def _prepare(self, steps: int) -> None:
        """AdamW and schedule as transformers' Trainer makes them."""
        import torch
        from transformers import get_scheduler

        settings = self.packed.settings
        self.weights = torch.nn.Parameter(self.adapter.flat)
        self.optimizer = torch.optim.AdamW(
            [self.weights], lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.schedule = get_scheduler(
            settings.schedule if settings.schedule != "constant" else "constant_with_warmup",
            self.optimizer,
            num_warmup_steps=math.ceil(steps * settings.warmup),
            num_training_steps=steps,
        )

    def hold(self, weights: Tensor, grads: Tensor) -> None:
        """Train these weights on; the optimizer's state stays."""
        self.weights.data, self.weights.grad = weights, grads

    def place(self, steps_per_epoch: int) -> tuple[int, int]:
        """Epoch of the next step, and its number within that epoch."""
        return divmod(self.done, steps_per_epoch)

    def choose(self, rows: Sequence[Encoded], steps_per_epoch: int) -> None:
        """Put the rows of the next step into ``due``; an epoch begins with an order of its own."""
        settings, size = self.packed.settings, self.packed.settings.rows_per_step
        epoch, number = self.place(steps_per_epoch)
        if number == 0:
            sampler = LengthGrouped([len(row.input_ids) for row in rows], size, settings.seed)
            sampler.set_epoch(epoch)
            self._order = [rows[index] for index in sampler]
        self.due = self._order[number * size : (number + 1) * size]

    def validates(self, steps_per_epoch: int) -> bool:
        """Whether the validation rows are to be scored after the step that was taken last."""
        return self.packed.settings.validates(self.done, self.steps, steps_per_epoch)

    def note(self, loss: float, entropy: float, accuracy: float, tokens: int) -> None:
        """Remember what a forward pass said."""
        self._losses.append(loss)
        self._entropies.append(entropy)
        self._accuracies.append(accuracy)
        self.tokens += tokens

    def step(self) -> None:
        """Clip the gradient, and move the weights and the learning rate.

        Raises:
            TrainingError: The loss was not finite.
        """
        import torch

        self.done += 1
        self._require_finite_loss(self.done)
        limit = self.packed.settings.max_grad_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_([self.weights], limit)
        self._last = {"train/grad_norm": float(norm), "train/learning_rate": float(self.schedule.get_last_lr()[0])}
        self.optimizer.step()
        self.schedule.step()
        self._steps += 1

    def _require_finite_loss(self, step: int) -> None:
        bad = next((loss for loss in self._losses if not math.isfinite(loss)), None)
        if bad is not None:
            raise TrainingError(
                f"the loss is {bad} at step {step}: training stopped. Lower trainer.learning_rate "
                f"(now {self.packed.settings.learning_rate:g}) or set trainer.max_grad_norm"
            )

    def require_finite_weights(self) -> None:
        """Refuse an adapter that is no use.

        Raises:
            TrainingError: A weight is not finite.
        """
        bad = int((~self.weights.isfinite()).sum())
        if bad:
            raise TrainingError(
                f"{bad} trained weights are not finite: no adapter was kept. "
                "Lower trainer.learning_rate or set trainer.max_grad_norm"
            )

    def log(self) -> None:
        """Send what happened since the last call."""
        self.record({"train/loss": sum(self._losses) / self._steps, **self._last, **self._means()})
        self._forget()

    def log_rest(self) -> None:
        """Send the means of the steps after the last that was logged, as TRL does at the end."""
        if self._losses:
            self.record(self._means())
            self._forget()

    def record(self, metrics: Mapping[str, float]) -> None:
        """Send metrics to the run and keep them."""
        self.history.append({"step": self.done, **metrics})
        self.packed.run.metrics(metrics, step=self.done)

    def _means(self) -> dict[str, float]:
        """TRL's metrics: means over forward passes, whatever their size."""
        return {
            "train/entropy": sum(self._entropies) / len(self._entropies),
            "train/mean_token_accuracy": sum(self._accuracies) / len(self._accuracies),
            "train/tokens": float(self.tokens),
            "train/tokens_per_second": self.tokens / self.seconds,
        }

    def _forget(self) -> None:
        self._losses: list[float] = []
        self._entropies: list[float] = []
        self._accuracies: list[float] = []
        self._steps = 0
