"""The training loop of a pack: what transformers' Trainer does to one adapter, done to many in the same passes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace

from loraloop.core.progress import Progress
from loraloop.errors import ConfigError, TrainingError
from loraloop.records import Dataset, Encoded, LoadedModel, Row, Training
from loraloop.trainer import estimate, fit, memory
from loraloop.trainer.choices import choose
from loraloop.trainer.encode import by_length, warn
from loraloop.trainer.pack import adapter
from loraloop.trainer.pack.base import frozen
from loraloop.trainer.pack.dropout_masks import DropoutMasks
from loraloop.trainer.pack.limits import obstacle
from loraloop.trainer.pack.packed_trial import PackedTrial, require_alike
from loraloop.trainer.pack.stack import AdapterStack
from loraloop.trainer.pack.steps import PackSteps
from loraloop.trainer.pack.training_state import TrialState

log = logging.getLogger(__name__)


def train(loaded: LoadedModel, packed_trials: Sequence[PackedTrial], data: Dataset) -> list[Training | Exception]:
    """Train the trials at once on one frozen base, each as :meth:`Sft.train` would have trained it alone.

    Trials have their own initialisation, row order, AdamW, learning rate, schedule, clipping and metrics. In fp32
    losses and weights are those of solo runs but for float rounding: a matrix product of more rows rounds otherwise.
    That is 1e-6 of the loss where training is stable, and grows with the training's own instability. The same holds
    for dropout on a CPU, where the masks are drawn as the solo run draws them; on a GPU, masks are as likely but not
    the same. bf16 and NF4 (whose adapters TRL keeps in bf16) round to three digits, and differ by as much.

    A trial whose loss is not finite, or whose ``on_evaluation`` ends it, leaves; the others go on as if it had never
    been there. Checkpoints are not written: ``save_steps`` and ``keep_checkpoints`` have no effect, and neither has
    ``gradient_checkpointing=auto``.

    Args:
        loaded: The base model, without an adapter; it is left as it was found.
        packed_trials: What to train; they differ in ``PACKABLE_LORA`` and ``PACKABLE_TRAINER`` alone.
        data: The rows of all.

    Returns:
        Each trial's training, or the exception that ended it and left no adapter. ``seconds`` is its share of the
        time in which the pack trained, ``peak_memory_bytes`` the whole pack's.

    Raises:
        ConfigError: The trials cannot be packed, or not together.
        TrainingError: Too many rows without a trainable token.
    """
    require_alike(packed_trials)
    reasons = (obstacle(packed.settings, packed.lora, loaded.model) for packed in packed_trials)
    if reason := next((reason for reason in reasons if reason), None):
        raise ConfigError(f"this job cannot be packed: {reason}. Take hydra/launcher=basic")
    return _Pack(loaded, packed_trials, data).train()


class _Pack:
    """A pack while it trains; trials of equal rank stand side by side."""

    def __init__(self, loaded: LoadedModel, packed_trials: Sequence[PackedTrial], data: Dataset) -> None:
        self.loaded, self.model, self.packed_trials, self.data = loaded, loaded.model, packed_trials, data
        self.settings = packed_trials[0].settings
        self.rows = self._usable(data.train, "training")
        self.validation = by_length(self._usable(data.validation, "validation"))
        lengths = [len(row.input_ids) for row in self.rows]
        self.choices = replace(choose(self.settings, self.model, lengths), gradient_checkpointing=False)
        self.steps_per_epoch = math.ceil(len(self.rows) / self.settings.rows_per_step)
        self.steps = self.settings.steps(len(self.rows))
        self.step = 0
        self.trials: dict[int, TrialState] = {}
        self.ended: dict[int, Exception] = {}

    def _usable(self, rows: Sequence[Row], name: str) -> list[Encoded]:
        fitting = self.settings.fitting(rows, self.loaded.tokenizer, name)
        warn(fitting, name)
        return fitting.sides[0]

    def train(self) -> list[Training | Exception]:
        """Train to the end, and keep what came of it."""
        memory.reset_peak(self.model.device)
        with frozen(self.model):
            self._enrol()
            if self.trials:
                self._train()
            peak = memory.peak(self.model.device)
            kept = {index: self._keep(trial, peak) for index, trial in self.trials.items()}
        outcomes: dict[int, Training | Exception] = {**kept, **self.ended}
        return [outcomes[index] for index in range(len(self.packed_trials))]

    def _enrol(self) -> None:
        """Begin with every trial that fits the base, in the order of their ranks."""
        for index in sorted(range(len(self.packed_trials)), key=lambda index: self.packed_trials[index].lora.r):
            packed = self.packed_trials[index]
            with self._ending(index):
                packed.lora.check_model(self.model)
                packed.settings.check_model(self.model.config)
                fit.prepare(packed.output, None, {})
                self._announce(packed)
                start = adapter.initial(self.model, packed.lora, packed.settings.seed)
                self.trials[index] = TrialState(packed, start, self.steps)

    def _announce(self, packed: PackedTrial) -> None:
        """Log what :meth:`Sft.train` logs before it begins."""
        price = self.settings.cost_per_hour / 3600
        expected = packed.settings.estimate(self.loaded, packed.lora, self.data).seconds if price else 0.0
        chosen = asdict(self.choices) | {"epochs": self.settings.passes(len(self.rows))}
        packed.run.params({f"trainer.chosen.{name}": value for name, value in chosen.items()})
        packed.run.metrics({"estimate/cost": price * expected})

    def _train(self) -> None:
        trials = self.trials.values()
        keys = [(trial.packed.settings.seed, trial.packed.lora.dropout) for trial in trials]
        stack = AdapterStack([trial.adapter for trial in trials], DropoutMasks(keys, self.model.device))
        log.info(
            "%d trials train at once: micro_batch=%d, accumulation=%d, bf16=%s",
            len(trials),
            self.choices.micro_batch,
            self.choices.accumulation,
            self.choices.bf16,
        )
        shown = Progress(f"training {len(trials)}", "step", self.steps, keep=True)
        with stack.attached(self.model), shown as progress:
            self.pack_steps = PackSteps(self.model, stack, self.choices, self.loaded.tokenizer.pad_token_id)
            self._hold()
            for epoch in range(math.ceil(self.steps / self.steps_per_epoch)):
                for _ in self._epoch(epoch):
                    progress.update(self.step, self._facts())
        if not self.validation:
            for trial in trials:
                trial.log_rest(self.step)

    def _epoch(self, epoch: int) -> Iterator[None]:
        """The steps of an epoch, up to the last of all."""
        settings, size = self.settings, self.settings.rows_per_step
        self.pack_steps.stack.masks.iterate()
        for trial in self.trials.values():
            trial.begin_epoch(self.rows, epoch)
        for start in range(0, len(self.rows), size):
            if not self.trials or self.step == self.steps:
                break
            self._step(slice(start, start + size))
            if settings.eval_steps and (self.step % settings.eval_steps == 0 or self.step == self.steps):
                self._validate()
            yield
        if not settings.eval_steps:
            self._validate()

    def _step(self, part: slice) -> None:
        began = time.perf_counter()
        trials = list(self.trials.values())
        self.step += 1
        with self._ending(*self.trials, kind=TrainingError):
            self.pack_steps.learn(trials, part)
        for index in self.trials.keys() - self.ended.keys():
            with self._ending(index):
                self.trials[index].step(self.step)
        share = (time.perf_counter() - began) / len(trials)
        for trial in trials:
            trial.seconds += share
        self._close_ranks()
        if self.step == 1 or self.step % self.settings.log_steps == 0:
            for trial in self.trials.values():
                trial.log(self.step)

    def _validate(self) -> None:
        """Score the validation rows, and let those who watch end their trials."""
        if not self.validation or not self.trials:
            return
        scores: list[list[float]] = []
        with self._ending(*self.trials, kind=TrainingError):
            scores = self.pack_steps.validate(self.validation, len(self.trials))
        for (index, trial), (loss, entropy, accuracy) in zip(self.trials.items(), scores, strict=bool(scores)):
            metrics = {"eval/loss": loss, "eval/entropy": entropy, "eval/mean_token_accuracy": accuracy}
            trial.record(self.step, metrics)
            with self._ending(index):
                if trial.packed.on_evaluation:
                    trial.packed.on_evaluation(self.step, loss)
        self._close_ranks()

    @contextmanager
    def _ending(self, *trials: int, kind: type[Exception] = Exception) -> Iterator[None]:
        """Within the context, which does work for these trials alone, an error of a kind ends their training alone."""
        try:
            yield
        except kind as error:
            self.ended |= dict.fromkeys(trials, error)

    def _close_ranks(self) -> None:
        """Let the pack shrink by the trials whose training has ended."""
        kept = [position for position, index in enumerate(self.trials) if index not in self.ended]
        if len(kept) < len(self.trials):
            self.trials = {index: trial for index, trial in self.trials.items() if index not in self.ended}
            self.pack_steps.stack.keep(kept)
            self._hold()

    def _hold(self) -> None:
        for trial, (weights, grads) in zip(self.trials.values(), self.pack_steps.stack.rows(), strict=True):
            trial.hold(weights, grads)

    def _facts(self) -> str:
        """What is shown with the progress."""
        trials = self.trials.values()
        speed = sum(trial.tokens for trial in trials) / max(sum(trial.seconds for trial in trials), 1e-9)
        losses = [row["train/loss"] for trial in trials for row in trial.history[-1:] if "train/loss" in row]
        lowest = [f"lowest loss {min(losses):.3f}"] if losses else []
        return ", ".join([f"{len(trials)} trials", *lowest, f"{speed:,.0f} tokens/s"])

    def _keep(self, trial: TrialState, peak: int) -> Training | Exception:
        """Save a trained adapter, and say what it took."""
        packed, count = trial.packed, trial.weights.numel()
        try:
            trial.require_finite_weights()
            folder = adapter.save(self.model, packed.lora, trial.adapter, trial.weights.detach(), packed.output)
        except Exception as error:
            return error
        packed.run.metrics({"final/cost": self.settings.cost_per_hour * trial.seconds / 3600}, step=self.step)
        return Training(
            adapter=folder,
            trainable_parameters=count,
            total_parameters=estimate.parameters(self.model) + count,
            steps=self.step,
            seconds=trial.seconds,
            tokens=trial.tokens,
            peak_memory_bytes=peak,
            history=tuple(trial.history),
        )
