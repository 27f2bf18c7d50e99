"""A cycle's training: from lessons on disk to an adapter with its scores, once, whatever ends the process meanwhile."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic
from loraloop.errors import DataError, TrackingError, TrainingError
from loraloop.workflows import rows as data
from loraloop.workflows.experiment import ADAPTER, SCORES, Experiment
from loraloop.workflows.retraining.training_set import Scorer, TrainingSet

if TYPE_CHECKING:
    from peft import PeftModel

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.gate.gate import Gate
    from loraloop.loop.cycle import Cycle
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Run, Source, Tracker, Trainer
    from loraloop.records import Dataset, Job, LoadedModel, Manifest, Training, Verdict, Version
    from loraloop.registry.mlflow import MlflowRegistry

_log = logging.getLogger(__name__)

RESULT = "trained.json"
TRAINING = "training"
REIGNING = "champion"
LOGGED = ("policy", "source", "ocr", "dataset", "model", "lora", "trainer", "evaluation", "gate")
"""Groups that decide a training: others hold passwords and addresses of people."""


@dataclass(kw_only=True)
class Retraining:
    """Trains and measures; the base stays in memory from one cycle to the next where training leaves it as it was."""

    job: Job
    source: Source
    ocr: Ocr
    dataset: DatasetBuilder
    model: CausalLM
    lora: Lora
    trainer: Trainer
    evaluation: Evaluation
    gate: Gate
    tracker: Tracker
    max_forgetting: float
    _loaded: LoadedModel | None = field(default=None, init=False)

    def train(
        self, cycle: Cycle, folder: Path, lessons: TrainingSet, registry: MlflowRegistry, champion: Version
    ) -> None:
        """Train, and measure the adapter, its base and the champion on the golden rows; what was done stays done.

        One process at a time works in the folder; the next finds what that one did.

        Args:
            cycle: Its run is the training's parent.
            folder: The cycle's.
            lessons: What it learns from and is measured on.
            registry: That of the cycle's model.
            champion: Whom it has to beat.

        Raises:
            ConfigError: Parts do not fit each other.
            DataError: The champion is of another base.
            TrainingError: Such as a loss that is not finite.
        """
        from loraloop.loop.lock import turn

        with turn(folder):
            if not (folder / RESULT).exists():
                self._measured(cycle, folder, lessons, registry, champion)

    def _measured(
        self, cycle: Cycle, folder: Path, lessons: TrainingSet, registry: MlflowRegistry, champion: Version
    ) -> None:
        from loraloop.evaluation import store
        from loraloop.workflows.retraining.outbox import interrupted

        course = self._course(folder / TRAINING, registry)
        data.fits(course.skeleton(), self.lora, self.trainer)
        with self._base() as loaded:
            rows = lessons.rows(self.dataset, loaded.tokenizer)
            name = f"train-{cycle.id}"
            estimate = self.trainer.estimate(course.skeleton(), self.lora, rows)
            with course.running(rows, estimate, name, cycle.run, interrupted(self.tracker, name)) as run:
                base = course.base_score(loaded, rows)
                trained, training = self._train(loaded, rows, run, course.job.output)
                course.measure(run, rows, loaded, base, trained, training)
                reigning = course.rescore(champion, trained, loaded, rows)
                if reigning is None:
                    raise DataError(
                        f"the champion, version {champion.number} on {champion.manifest.base.name}, is of another base "
                        f"than model.name={self.model.name} and cannot be compared: choose its base"
                    )
                store.write(reigning, course.job.output / SCORES / REIGNING)
                figures = {"steps": training.steps, "seconds": training.seconds, "rows": len(rows.train)}
                facts = {"champion": champion.number, "run": run.id, "figures": figures}
                with atomic.write(folder / RESULT) as stream:
                    stream.write(json.dumps(facts).encode())

    def abandon(self, cycle: Cycle, reason: str) -> None:
        """Close the run of a training that was interrupted and is not gone on with."""
        name = f"train-{cycle.id}"
        with suppress(TrackingError):
            found = self.tracker.read(name)
            if found["status"] == "RUNNING":
                with suppress(TrainingError), self.tracker.start(name, resume=str(found["id"])):
                    raise TrainingError(reason)

    def decide(self, folder: Path) -> Verdict:
        """Whether the trained adapter may serve: the gate's verdict, and that it does not forget."""
        from loraloop.evaluation import store
        from loraloop.loop.forgetting import forgetting
        from loraloop.records import Verdict

        scores = folder / TRAINING / SCORES
        candidate, base, reigning = (store.read(scores / name) for name in (ADAPTER, "base", REIGNING))
        verdict = self.gate.decide(candidate, base, reigning)
        forgot = forgetting(candidate, reigning)
        numbers = {**verdict.numbers, "forgetting": forgot.share, "drops": dict(forgot.drops)}
        return Verdict(
            verdict.passed and forgot.worst <= self.max_forgetting,
            f"{verdict.reason}; {forgot.reason(self.max_forgetting)}",
            numbers | {"max_forgetting": self.max_forgetting},
        )

    def result(self, folder: Path) -> dict[str, Any]:
        """``champion`` that it was measured against, ``run``, and ``figures`` of a training that is done."""
        found: dict[str, Any] = json.loads((folder / RESULT).read_text())
        return found

    def adapter(self, folder: Path) -> tuple[Path, Manifest]:
        """The trained adapter."""
        from loraloop.registry import manifest as manifests

        adapter = folder / TRAINING / ADAPTER
        return adapter, manifests.read(adapter)

    def _course(self, output: Path, registry: MlflowRegistry) -> Experiment:
        config = {group: self.job.config[group] for group in LOGGED if group in self.job.config}
        choices = {group: choice for group, choice in self.job.choices.items() if group in LOGGED}
        return Experiment(
            job=replace(self.job, output=output, config=config, choices=choices),
            source=Scorer(self.source),
            ocr=self.ocr,
            dataset=self.dataset,
            model=self.model,
            lora=self.lora,
            trainer=self.trainer,
            evaluation=self.evaluation,
            gate=self.gate,
            tracker=self.tracker,
            registry=registry,
        )

    def _train(self, loaded: LoadedModel, rows: Dataset, run: Run, output: Path) -> tuple[PeftModel, Training]:
        """Go on from the newest checkpoint of a training that was interrupted, or begin."""
        from loraloop.model import adapters
        from loraloop.trainer import checkpoints

        # An adapter without scores: its last checkpoint gives the same one again.
        shutil.rmtree(output / ADAPTER, ignore_errors=True)
        sound = [each for each in output.glob("checkpoints/checkpoint-*") if checkpoints.verify(each) is None]
        if sound:
            try:
                return self.trainer.train(loaded, self.lora, rows, run, output, output)
            except TrainingError as error:
                _log.warning("the interrupted training cannot go on, and begins again: %s", error)
                adapters.detach(loaded.model)
        shutil.rmtree(output / "checkpoints", ignore_errors=True)
        return self.trainer.train(loaded, self.lora, rows, run, output)

    @contextmanager
    def _base(self) -> Iterator[LoadedModel]:
        from loraloop.model import adapters

        loaded = self._loaded = self._loaded or self.model.load()
        try:
            yield loaded
        finally:
            if self.lora.mutates_base or self.lora.bias != "none":
                self._loaded = None
            else:
                adapters.detach(loaded.model)
