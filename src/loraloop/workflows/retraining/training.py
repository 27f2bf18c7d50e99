"""A cycle's training: from the training set on disk to an adapter with its scores, done once, also after a crash."""

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
from loraloop.errors import ArtefactError, ConfigError, DataError, TrackingError, TrainingError
from loraloop.workflows import continuation
from loraloop.workflows import rows as data
from loraloop.workflows.experiment import ADAPTER, FEW_SHOT, SCORES, Experiment
from loraloop.workflows.retraining import recipes
from loraloop.workflows.retraining.training_set import Scorer, TrainingSet

if TYPE_CHECKING:
    from loraloop.loop.cycle import Cycle
    from loraloop.protocols import Run, Trainer
    from loraloop.records import Dataset, LoadedModel, Manifest, Training, Verdict, Version
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.workflows.parts import ExperimentParts
    from loraloop.workflows.retraining.deployment import Deployment

_log = logging.getLogger(__name__)

RESULT = "trained.json"
TRAINING = "training"
CHAMPION = "champion"
LOGGED = ("policy", "source", "ocr", "dataset", "model", "lora", "trainer", "evaluation", "gate")
"""Groups that decide a training. Other groups hold passwords and addresses, and are not logged."""


@dataclass(kw_only=True)
class Retraining:
    """Trains and measures; the base stays in memory from one cycle to the next."""

    parts: ExperimentParts
    max_forgetting: float
    _loaded: LoadedModel | None = field(default=None, init=False)

    def train(
        self, cycle: Cycle, folder: Path, training_set: TrainingSet, registry: MlflowRegistry, champion: Version
    ) -> None:
        """Train, and measure the adapter, its base and the champion on the golden rows.

        One process at a time works in the folder. A training that another process finished is not repeated.

        Args:
            cycle: Its run is the parent of the training's run.
            folder: The cycle's folder.
            training_set: What it learns from and is measured on.
            registry: The registry of the cycle's model.
            champion: The version that the gate compares with.

        Raises:
            ConfigError: Parts do not fit each other.
            DataError: The champion is of another base.
            TrainingError: Such as a loss that is not finite.
        """
        from loraloop.loop.lock import turn

        with turn(folder):
            if not (folder / RESULT).exists():
                self._measured(cycle, folder, training_set, registry, champion)

    def _measured(
        self, cycle: Cycle, folder: Path, training_set: TrainingSet, registry: MlflowRegistry, champion: Version
    ) -> None:
        from loraloop.evaluation import store
        from loraloop.workflows.retraining.outbox import interrupted

        learn = training_set.facts.get("learn", "sft")
        begin = None if learn == "sft" else _address(champion)
        experiment = self._experiment(folder / TRAINING, registry, begin, recipes.trainer(learn, self.parts.trainer))
        data.fits(experiment.skeleton(), self.parts.lora, experiment.trainer)
        with self._base() as loaded:
            rows = training_set.rows(self.parts.dataset, loaded.tokenizer)
            name = f"train-{cycle.id}"
            estimate = experiment.trainer.estimate(experiment.skeleton(), self.parts.lora, rows)
            with experiment.running(rows, estimate, name, cycle.run, interrupted(self.parts.tracker, name)) as run:
                base = experiment.base_score(loaded, rows)
                experiment.log_start(run, estimate, base)
                champion_score = experiment.score_of(champion, loaded, rows)
                if champion_score is None:
                    raise DataError(
                        f"the champion, version {champion.number} on {champion.manifest.base.name}, is of another base "
                        f"than model.name={self.parts.model.name} and cannot be compared: choose its base"
                    )
                few_shot = experiment.few_shot_score(loaded, rows)
                training = _train(experiment, loaded, rows, run)
                experiment.measure(run, rows, loaded, base, training, few_shot)
                store.write(champion_score, experiment.job.output / SCORES / CHAMPION)
                figures = {"steps": training.steps, "seconds": training.seconds, "rows": len(rows.train)}
                facts = {"champion": champion.number, "run": run.id, "figures": figures}
                with atomic.write(folder / RESULT) as stream:
                    stream.write(json.dumps(facts).encode())

    def misfit(self, deployment: Deployment) -> str | None:
        """Why a training cannot go on with a role's champion; ``None`` if it can, as far as its shape tells."""
        asked = _address(deployment.champion())
        try:
            continuation.start(deployment.registry, asked, self.parts.model.skeleton(), self.parts.lora)
        except ConfigError as error:
            return str(error)
        return None

    def abandon(self, cycle: Cycle, reason: str) -> None:
        """Close the run of an interrupted training that nobody will go on with."""
        name = f"train-{cycle.id}"
        with suppress(TrackingError):
            found = self.parts.tracker.read(name)
            if found["status"] == "RUNNING":
                with suppress(TrainingError), self.parts.tracker.start(name, resume=str(found["id"])):
                    raise TrainingError(reason)

    def decide(self, folder: Path) -> Verdict:
        """Whether the trained adapter may be served: the gate passes, and it forgets no more than the limit."""
        from loraloop.evaluation import store
        from loraloop.loop.forgetting import forgetting
        from loraloop.records import Verdict

        try:
            self.parts.registry.require_servable(folder / TRAINING / ADAPTER, "the adapter")
        except ArtefactError as error:
            return Verdict(False, f"no server would load it: {error}", {})
        scores = folder / TRAINING / SCORES
        candidate, base, champion_score = (store.read(scores / name) for name in (ADAPTER, "base", CHAMPION))
        few_shot = store.read(scores / FEW_SHOT) if (scores / FEW_SHOT).is_dir() else None
        general = self.adapter(folder)[1].general
        verdict = self.parts.gate.decide(candidate, base, champion_score, few_shot, general)
        forgot = forgetting(candidate, champion_score)
        numbers = {**verdict.numbers, "forgetting": forgot.share, "drops": dict(forgot.drops)}
        return Verdict(
            verdict.passed and forgot.worst <= self.max_forgetting,
            f"{verdict.reason}; {forgot.reason(self.max_forgetting)}",
            numbers | {"max_forgetting": self.max_forgetting},
        )

    def result(self, folder: Path) -> dict[str, Any]:
        """Facts of a finished training: ``champion`` that it was measured beside, ``run`` and ``figures``."""
        found: dict[str, Any] = json.loads((folder / RESULT).read_text())
        return found

    def adapter(self, folder: Path) -> tuple[Path, Manifest]:
        """The trained adapter."""
        from loraloop.registry import manifest as manifests

        adapter = folder / TRAINING / ADAPTER
        return adapter, manifests.read(adapter)

    def _experiment(self, output: Path, registry: MlflowRegistry, begin: str | None, trainer: Trainer) -> Experiment:
        config = {group: self.parts.job.config[group] for group in LOGGED if group in self.parts.job.config}
        if trainer is not self.parts.trainer:
            config["trainer"] = config.get("trainer", {}) | {"learning_rate": trainer.learning_rate}  # type: ignore[attr-defined]
        choices = {group: choice for group, choice in self.parts.job.choices.items() if group in LOGGED}
        return Experiment.of(
            self.parts,
            job=replace(self.parts.job, output=output, config=config, choices=choices),
            source=Scorer(self.parts.source),
            registry=registry,
            trainer=trainer,
            continue_from=begin,
        )

    @contextmanager
    def _base(self) -> Iterator[LoadedModel]:
        from loraloop.model import adapters

        loaded = self._loaded = self._loaded or self.parts.model.load()
        try:
            yield loaded
        finally:
            adapters.detach(loaded.model)


def _address(version: Version) -> str:
    return f"models:/{version.name}/{version.number}"


def _train(experiment: Experiment, loaded: LoadedModel, rows: Dataset, run: Run) -> Training:
    """Go on from the newest intact checkpoint, or begin."""
    from loraloop.trainer import checkpoints

    output = experiment.job.output
    # This adapter has no scores yet; the last checkpoint gives the same adapter again.
    shutil.rmtree(output / ADAPTER, ignore_errors=True)
    sound = [each for each in output.glob("checkpoints/checkpoint-*") if checkpoints.verify(each) is None]
    if sound:
        try:
            return experiment.train(loaded, rows, run, resume=output)
        except TrainingError as error:
            _log.warning("the interrupted training cannot go on, and begins again: %s", error)
    shutil.rmtree(output / "checkpoints", ignore_errors=True)
    return experiment.train(loaded, rows, run)
