"""The training loop of a pack: what transformers' Trainer does to one adapter, done to many in the same passes."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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

Outcome = Training | Exception
Refill = Callable[[Mapping[int, Outcome], int], Sequence[PackedTrial]]
"""Given how trials ended, by their positions, and how many places are free: the trials that begin there."""

log = logging.getLogger(__name__)


def train(
    loaded: LoadedModel, packed_trials: Sequence[PackedTrial], data: Dataset, refill: Refill | None = None
) -> list[Outcome]:
    """Train the trials at once on one frozen base, each as :meth:`Sft.train` would have trained it alone.

    Trials have their own initialisation, row order, AdamW, learning rate, schedule, clipping and metrics. In fp32
    losses and weights are those of solo runs but for float rounding: a matrix product of more rows rounds otherwise.
    That is 1e-6 of the loss where training is stable, and grows with the training's own instability. The same holds
    for dropout on a CPU, where the masks are drawn as the solo run draws them; on a GPU, masks are as likely but not
    the same. bf16 and NF4 (whose adapters TRL keeps in bf16) round to three digits, and differ by as much.

    A trial whose loss is not finite, or whose ``on_evaluation`` ends it, leaves; the others go on as if it had never
    been there. With ``refill`` another trial takes its place at once, and begins with its own first step, as those
    do that take the places of trials that are trained (ALTO, arXiv 2604.05426, refills a pack so). Checkpoints are not
    written: ``save_steps`` and ``keep_checkpoints`` have no effect, and neither has ``gradient_checkpointing=auto``.

    Args:
        loaded: The base model, without an adapter; it is left as it was found.
        packed_trials: What to train; they differ in ``PACKABLE_LORA`` and ``PACKABLE_TRAINER`` alone.
        data: The rows of all.
        refill: Asked for more trials whenever some have ended, also after the last; the base is without adapters then.

    Returns:
        Each trial's training, or the exception that ended it and left no adapter; those of ``refill`` come after the
        others, in the order in which they began. ``seconds`` is a trial's share of the time in which the pack trained,
        ``peak_memory_bytes`` the whole pack's.

    Raises:
        ConfigError: The trials cannot be packed, or not together.
        TrainingError: Too many rows without a trainable token.
    """
    require_alike(packed_trials)
    for packed in packed_trials:
        _require_packable(packed, loaded)
    return _Pack(loaded, packed_trials, data, refill).train()


def _require_packable(packed: PackedTrial, loaded: LoadedModel) -> None:
    if reason := obstacle(packed.settings, packed.lora, loaded.model):
        raise ConfigError(f"this job cannot be packed: {reason}. Take hydra/launcher=basic")


class _Pack:
    """A pack while it trains; trials of equal rank stand side by side."""

    def __init__(
        self, loaded: LoadedModel, packed_trials: Sequence[PackedTrial], data: Dataset, refill: Refill | None
    ) -> None:
        self.loaded, self.model, self.data, self.refill = loaded, loaded.model, data, refill
        self.packed_trials, self.places = list(packed_trials), len(packed_trials)
        self.settings = packed_trials[0].settings
        self.rows = self._usable(data.train, "training")
        self.validation = by_length(self._usable(data.validation, "validation"))
        lengths = [len(row.input_ids) for row in self.rows]
        self.choices = replace(choose(self.settings, self.model, lengths), gradient_checkpointing=False)
        self.steps_per_epoch = math.ceil(len(self.rows) / self.settings.rows_per_step)
        self.steps = self.settings.steps(len(self.rows))
        self.step = 0
        self.trials: dict[int, TrialState] = {}
        self.ended: dict[int, Exception | None] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.stack = AdapterStack([], DropoutMasks([], self.model.device))
        pad = loaded.tokenizer.pad_token_id
        self.passes = PackSteps(self.model, self.stack, self.choices, pad, self.places)

    def _usable(self, rows: Sequence[Row], name: str) -> list[Encoded]:
        fitting = self.settings.fitting(rows, self.loaded.tokenizer, name)
        warn(fitting, name)
        return fitting.sides[0]

    def train(self) -> list[Outcome]:
        """Train to the end, and keep what came of it."""
        memory.reset_peak(self.model.device)
        choices = self.choices
        shown = Progress(f"training {self.places}", "step", self.steps, keep=True)
        with frozen(self.model), shown as progress:
            self._begin(range(self.places))
            self._settle()
            log.info(
                "%d trials train at once: micro_batch=%d, accumulation=%d, bf16=%s",
                len(self.trials),
                choices.micro_batch,
                choices.accumulation,
                choices.bf16,
            )
            while self.trials:
                progress.total = self.step + max(self.steps - trial.done for trial in self.trials.values())
                with self.stack.attached(self.model):
                    while not self.ended:
                        self._step()
                        progress.update(self.step, self._facts())
                self._settle()
        return [self.outcomes[index] for index in range(len(self.packed_trials))]

    def _begin(self, indices: Iterable[int]) -> None:
        """Take in every trial that fits the base."""
        for index in indices:
            packed = self.packed_trials[index]
            with self._ending(index):
                packed.lora.check_model(self.model)
                packed.settings.check_model(self.model.config)
                fit.prepare(packed.output, None, {})
                self._announce(packed)
                start = adapter.initial(self.model, packed.lora, packed.settings.seed)
                self.trials[index] = TrialState(packed, start, self.steps, self.step)

    def _announce(self, packed: PackedTrial) -> None:
        """Log what :meth:`Sft.train` logs before it begins."""
        price = self.settings.cost_per_hour / 3600
        expected = packed.settings.estimate(self.loaded, packed.lora, self.data).seconds if price else 0.0
        chosen = asdict(self.choices) | {"epochs": self.settings.passes(len(self.rows))}
        packed.run.params({f"trainer.chosen.{name}": value for name, value in chosen.items()})
        packed.run.metrics({"estimate/cost": price * expected})

    def _settle(self) -> None:
        """Let those leave whose training has ended, fill their places, and put the others together anew."""
        while self.ended:
            outcomes = {index: self._outcome(index, error) for index, error in self.ended.items()}
            self.trials = {index: trial for index, trial in self.trials.items() if index not in outcomes}
            self.outcomes |= outcomes
            self.ended = {}
            self._fill(outcomes)
        ranked = sorted(self.trials, key=lambda index: (self.trials[index].adapter.rank, index))
        self.trials = {index: self.trials[index] for index in ranked}
        trials = self.trials.values()
        self.stack.hold([trial.adapter for trial in trials], [trial.weights.data for trial in trials])
        self.stack.masks.hold([trial.key for trial in trials])
        for trial, (weights, grads) in zip(trials, self.stack.rows(), strict=True):
            trial.hold(weights, grads)

    def _outcome(self, index: int, error: Exception | None) -> Outcome:
        return error if error is not None else self._keep(self.trials[index], memory.peak(self.model.device))

    def _fill(self, outcomes: Mapping[int, Outcome]) -> None:
        if self.refill is None:
            return
        known = len(self.packed_trials)
        for packed in self.refill(outcomes, self.places - len(self.trials)):
            require_alike([self.packed_trials[0], packed])
            _require_packable(packed, self.loaded)
            self.packed_trials.append(packed)
        self._begin(range(known, len(self.packed_trials)))

    def _step(self) -> None:
        began = time.perf_counter()
        trials = list(self.trials.values())
        self.step += 1
        starting = [place for place, trial in enumerate(trials) if trial.place(self.steps_per_epoch)[1] == 0]
        self.stack.masks.iterate(starting)
        for trial in trials:
            trial.choose(self.rows, self.steps_per_epoch)
        with self._ending(*self.trials, kind=TrainingError):
            self.passes.learn(trials)
        for index, trial in self._going():
            with self._ending(index):
                trial.step()
        share = (time.perf_counter() - began) / len(trials)
        for trial in trials:
            trial.seconds += share
        for _, trial in self._going():
            if trial.done == 1 or trial.done % self.settings.log_steps == 0:
                trial.log()
        self._validate()
        for index, trial in self._going():
            if trial.done == self.steps:
                self._finish(index, trial)

    def _going(self) -> list[tuple[int, TrialState]]:
        """The trials that have not ended, in the order in which they came."""
        return [(index, self.trials[index]) for index in sorted(self.trials) if index not in self.ended]

    def _finish(self, index: int, trial: TrialState) -> None:
        if not self.validation:
            trial.log_rest()
        self.ended[index] = None

    def _validate(self) -> None:
        """Score the validation rows where that is due, and let those who watch end their trials."""
        due = [index for index, trial in self._going() if trial.validates(self.steps_per_epoch)]
        if not self.validation or not due:
            return
        places = [place for place, index in enumerate(self.trials) if index in due]
        scores: list[list[float]] = []
        with self._ending(*due, kind=TrainingError):
            scores = self.passes.validate(self.validation, places, len(self.trials))
        scored = dict(zip([index for index in self.trials if index in due], scores, strict=bool(scores)))
        for index in due if scores else ():
            loss, entropy, accuracy = scored[index]
            trial = self.trials[index]
            trial.record({"eval/loss": loss, "eval/entropy": entropy, "eval/mean_token_accuracy": accuracy})
            with self._ending(index):
                if trial.packed.on_evaluation:
                    trial.packed.on_evaluation(trial.done, loss)

    @contextmanager
    def _ending(self, *trials: int, kind: type[Exception] = Exception) -> Iterator[None]:
        """Within the context, which does work for these trials alone, an error of a kind ends their training alone."""
        try:
            yield
        except kind as error:
            self.ended |= dict.fromkeys(trials, error)

    def _facts(self) -> str:
        """What is shown with the progress."""
        trials = self.trials.values()
        speed = sum(trial.tokens for trial in trials) / max(sum(trial.seconds for trial in trials), 1e-9)
        losses = [row["train/loss"] for trial in trials for row in trial.history[-1:] if "train/loss" in row]
        lowest = [f"lowest loss {min(losses):.3f}"] if losses else []
        return ", ".join([f"{len(trials)} trials", *lowest, f"{speed:,.0f} tokens/s"])

    def _keep(self, trial: TrialState, peak: int) -> Outcome:
        """Save a trained adapter, and say what it took."""
        packed, count = trial.packed, trial.weights.numel()
        try:
            trial.require_finite_weights()
            folder = adapter.save(self.model, packed.lora, trial.adapter, trial.weights.detach(), packed.output)
        except Exception as error:
            return error
        packed.run.metrics({"final/cost": self.settings.cost_per_hour * trial.seconds / 3600}, step=trial.done)
        return Training(
            adapter=folder,
            trainable_parameters=count,
            total_parameters=estimate.parameters(self.model) + count,
            steps=trial.done,
            seconds=trial.seconds,
            tokens=trial.tokens,
            peak_memory_bytes=peak,
            history=tuple(trial.history),
        )
