"""Watching a training: metrics, progress, manifests of checkpoints, and the end that Ctrl+C or SIGTERM asks for."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from loraloop.core.progress import Progress
from loraloop.core.signals import terminate_without_reader
from loraloop.errors import TerminatedError
from loraloop.protocols import EvaluationCallback, Run
from loraloop.records import FrozenMap
from loraloop.trainer import checkpoints
from loraloop.trainer.member import RelayedProgress, member

UNUSED = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time", "epoch", "total_flos")
REPEATED = ("train/train_loss", "eval/tokens")


class Monitor:
    """Watches one training run; :meth:`callback` is its form for transformers' Trainer.

    Args:
        run: Where metrics go.
        inputs: What decides the result, kept in every checkpoint's manifest.
        on_evaluation: Told every validation loss; may end the training.
    """

    def __init__(self, run: Run, inputs: Mapping[str, Any], on_evaluation: EvaluationCallback | None = None) -> None:
        self.run = run
        self.inputs = inputs
        self.on_evaluation = on_evaluation
        self.history: list[FrozenMap] = []
        self._interruption: type[KeyboardInterrupt] | None = None
        self._started, self.tokens_before = time.perf_counter(), 0
        self.member = member()
        shown = Progress("training", "step", keep=True)
        self._progress = RelayedProgress(self.member) if self.member else shown

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl+C or SIGTERM has asked for the end."""
        return self._interruption is not None

    def raise_interruption(self) -> None:
        """Raise what asked for the end, if anything did: KeyboardInterrupt, or TerminatedError after SIGTERM."""
        if self._interruption is not None:
            raise self._interruption

    def callback(self) -> Any:
        """A ``transformers.TrainerCallback`` that calls this monitor."""
        from transformers import TrainerCallback

        monitor = self

        class Callback(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                monitor.begin(state)

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                monitor.step(state, control)

            def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                monitor.epoch(state, control)

            def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
                if state.is_world_process_zero:
                    monitor.log(state.global_step, logs)

            def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
                if monitor.on_evaluation is not None:
                    monitor.on_evaluation(state.global_step, float(metrics["eval_loss"]))

            def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                if monitor.member is not None:
                    monitor.member.wait()  # each has a file in the checkpoint
                if state.is_world_process_zero:
                    folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                    checkpoints.write_manifest(folder, monitor.inputs)

        return Callback()

    def begin(self, state: Any) -> None:
        """Training begins, perhaps from a checkpoint, whose steps belong to the history too."""
        self.history = [{"step": logs["step"], **_metrics(logs)} for logs in state.log_history]
        self._started, self.tokens_before = time.perf_counter(), state.num_input_tokens_seen
        self._progress.start(state.global_step, state.max_steps)

    def show(self, done: int, total: int | None, facts: str | None) -> None:
        """Show steps of a training in other processes."""
        if total and self._progress.total is None:
            self._progress.start(done, total)
        self._progress.update(done, facts)

    def step(self, state: Any, control: Any) -> None:
        """A step ended; after an interrupt, or when nobody reads the output any more, it is the last and is saved."""
        if self.member is not None and self.member.stops():
            self._interruption = KeyboardInterrupt
        if state.is_world_process_zero:
            self._progress.update(state.global_step)
            if not self.interrupted:
                terminate_without_reader()
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def epoch(self, state: Any, control: Any) -> None:
        """An epoch ended; one that an interrupt cut short is neither scored nor saved again."""
        if self.interrupted and state.epoch % 1:
            control.should_evaluate = control.should_save = False

    def log(self, step: int, logs: Mapping[str, Any]) -> None:
        """Send metrics to the run under keys that are the same in every run."""
        metrics = _metrics(logs)
        if not metrics:
            return
        seconds = time.perf_counter() - self._started
        if "train/tokens" in metrics:
            metrics["train/tokens_per_second"] = (metrics["train/tokens"] - self.tokens_before) / seconds
            speed = f"{metrics['train/tokens_per_second']:,.0f} tokens/s"
            loss = f"loss {metrics['train/loss']:.3f}, " if "train/loss" in metrics else ""
            self._progress.update(step, loss + speed)
        self.history.append({"step": step, **metrics})
        self.run.metrics(metrics, step=step)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Show the progress, and let the first Ctrl+C or SIGTERM finish and save the current step.

        A second one acts at once.
        """
        if self.member is not None:  # the process that was started by a person asks for the end
            yield
            return
        interrupt = self._first_waits(signal.SIGINT, KeyboardInterrupt)
        with self._progress, interrupt, self._first_waits(signal.SIGTERM, TerminatedError):
            yield

    @contextlib.contextmanager
    def _first_waits(self, number: signal.Signals, meaning: type[KeyboardInterrupt]) -> Iterator[None]:
        before = signal.getsignal(number)
        # Python handles signals in the main thread; a job that a shell put in the background ignores Ctrl+C.
        if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            self._interruption = meaning
            signal.signal(number, before)

        signal.signal(number, note)
        try:
            yield
        finally:
            signal.signal(number, before)


def _metrics(logs: Mapping[str, Any]) -> dict[str, float]:
    known = {name: value for name, value in logs.items() if value is not None and not name.endswith(UNUSED)}
    metrics = {_key(name): float(value) for name, value in known.items()}
    return {name: value for name, value in metrics.items() if name not in REPEATED}


def _key(name: str) -> str:
    group, short = ("eval", name.removeprefix("eval_")) if name.startswith("eval_") else ("train", name)
    return f"{group}/{'tokens' if short == 'num_tokens' else short}"
