"""The course of one experiment in its three legs; a pack runs the middle one for many at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop import __version__
from loraloop.core import console
from loraloop.core.adapter_files import CONFIG, WEIGHTS
from loraloop.core.hashing import sha256
from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError, DataError
from loraloop.workflows import promotion, report
from loraloop.workflows import rows as data
from loraloop.workflows.multirun import cache

if TYPE_CHECKING:
    from peft import PeftModel

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.gate.gate import Gate
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Run, Source, Tracker, Trainer
    from loraloop.records import Dataset, Estimate, Job, LoadedModel, Manifest, Score, Training, Version
    from loraloop.registry.mlflow import MlflowRegistry

SCORES = "evaluation"
ADAPTER = "adapter"
DATA = "dataset.jsonl"
DATA_GROUPS = ("source", "ocr", "dataset", "model")
OBJECTIVES = (
    "loss", "perplexity", "exact_match", "task_accuracy", "rouge_l", "bleu", "chrf",
    "trainable_parameters", "peak_memory_bytes", "seconds", "tokens_per_second",
)  # fmt: skip

Values = float | tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment's parts and what they are for: the parameters of :func:`loraloop.stages.experiment.experiment`."""

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
    registry: MlflowRegistry
    resume: str | None = None
    objective: str | list[str] = "loss"

    def prepare(self) -> tuple[Dataset, Estimate]:
        """First leg: check everything, make the rows, say what is to be expected.

        Raises:
            ConfigError: Parts do not fit each other, or there is no such objective.
            DataError: The job's folder holds an earlier run.
        """
        _require_known(self._objectives)
        _own_folder(self.job, self.resume)
        skeleton = self.skeleton()
        data.fits(skeleton, self.lora, self.trainer)
        rows = cache.cached(self.job, "rows", DATA_GROUPS, lambda: self._rows(skeleton))
        estimate = self.trainer.estimate(skeleton, self.lora, rows)
        report.data(rows)
        report.estimate(estimate)
        return rows, estimate

    def skeleton(self) -> LoadedModel:
        """The base's shape and tokenizer, without its weights."""
        return cache.cached(self.job, "skeleton", ("model",), self.model.skeleton)

    @contextmanager
    def running(
        self,
        rows: Dataset,
        estimate: Estimate,
        name: str | None = None,
        parent: str | None = None,
        resume: str | None = None,
    ) -> Iterator[Run]:
        """The tracked run that spans training and evaluation, with its parameters and data logged.

        Args:
            rows: What is trained on and held out.
            estimate: What is to be expected.
            name: Of the run; else the choices that made it.
            parent: The run under which it is nested; else that of the sweep.
            resume: A run that was interrupted, to go on with.
        """
        job = self.job
        parent = parent or (job.trial.parent if job.trial else None)
        with self.tracker.start(name or _name(job), parent, resume) as run:
            if job.trial:
                job.trial.note(run=run.id, folder=str(job.output))
                run.tags({"trial": str(job.trial.number)})
            run.params(
                {**console.flatten(job.config), "seed": str(job.seed), "lora.alpha": str(self.lora.effective_alpha)}
            )
            run.metrics({f"estimate/{name}": float(value) for name, value in asdict(estimate).items()})
            _log_data(run, job, self.dataset, rows)
            yield run

    def base_score(self, loaded: LoadedModel, rows: Dataset) -> Score:
        """How the base does on the held-out rows."""
        return cache.cached(
            self.job,
            "base score",
            (*DATA_GROUPS, "evaluation"),
            lambda: self.evaluation.score_base(loaded, rows.validation, self.source.correct),
        )

    def conclude(
        self, run: Run, rows: Dataset, loaded: LoadedModel, base: Score, trained: PeftModel, training: Training
    ) -> Values:
        """Last leg: evaluate, keep, register and ask the gate; a sweep does the latter two for its best trial alone."""
        score, manifest = self.measure(run, rows, loaded, base, trained, training)
        verdict = None
        if self.job.trial is None:

            def rescore(champion: Version) -> Score | None:
                return self.rescore(champion, trained, loaded, rows)

            verdict = promotion.promote_if_passed(
                self.registry, self.gate, training.adapter, manifest, (score, base), run.id, rescore
            )
            run.tags(verdict.tags())
        report.summary(base, score, training, verdict, run.link, self.tracker.ui_command)
        values = self._values(score, training)
        if self.job.trial:
            self.job.trial.finish(values)
        return values

    def measure(
        self, run: Run, rows: Dataset, loaded: LoadedModel, base: Score, trained: PeftModel, training: Training
    ) -> tuple[Score, Manifest]:
        """Evaluate the adapter and keep it with its scores and its manifest; nothing is registered."""
        score = self.evaluation.score(
            trained, loaded.tokenizer, rows.validation, self.source.correct, "evaluate adapter"
        )
        manifest = self._manifest(run, loaded, rows, trained, training.adapter)
        _log_result(run, self.job, self.evaluation, base, score, training, manifest)
        return score, manifest

    def rescore(self, champion: Version, trained: PeftModel, loaded: LoadedModel, rows: Dataset) -> Score | None:
        """How an earlier version does on the same held-out rows; ``None`` if it is of another base."""
        from loraloop.errors import ModelError
        from loraloop.model import adapters
        from loraloop.registry import manifest as manifests

        try:
            manifests.verify_adapter(loaded.base, champion.manifest)
        except ModelError:
            return None
        with adapters.instead(trained, champion.path) as model:
            return self.evaluation.score(
                model, loaded.tokenizer, rows.validation, self.source.correct, "evaluate champion"
            )

    @property
    def _objectives(self) -> list[str]:
        return [self.objective] if isinstance(self.objective, str) else list(self.objective)

    def _values(self, score: Score, training: Training) -> Values:
        known = score.metrics() | {name.removeprefix("cost/"): value for name, value in report.costs(training).items()}
        values = tuple(known[name] for name in self._objectives)
        return values[0] if isinstance(self.objective, str) else values

    def _rows(self, skeleton: LoadedModel) -> Dataset:
        return data.prepare(self.source, self.ocr, self.dataset, skeleton.tokenizer)

    def _manifest(self, run: Run, loaded: LoadedModel, rows: Dataset, trained: PeftModel, adapter: Path) -> Manifest:
        from loraloop.model import adapters
        from loraloop.records import Manifest

        # What was saved: an adapter that began with a part of the base has twice the rank that it was trained with.
        saved = json.loads((adapter / CONFIG).read_bytes())
        targets = self.lora.targets
        return Manifest(
            base=loaded.base,
            rank=int(saved["r"]),
            alpha=float(saved["lora_alpha"]),
            targets=(targets,) if isinstance(targets, str) else tuple(targets),
            dataset_fingerprint=rows.fingerprint,
            template=self.dataset.template,
            run_id=run.id,
            parent_run_id=self.job.trial.parent if self.job.trial else None,
            weights_sha256=sha256(adapter / WEIGHTS),
            loraloop_version=__version__,
            probe=adapters.probe(trained, loaded.tokenizer),
        )


def _require_known(objectives: list[str]) -> None:
    unknown = [name for name in objectives if name not in OBJECTIVES]
    if unknown or not objectives:
        problems = [f"objective={name}: no such result{nearest(name, OBJECTIVES)}" for name in unknown]
        raise ConfigError(f"{'; '.join(problems) or 'objective=[] is empty'}; a run can return {', '.join(OBJECTIVES)}")


def _own_folder(job: Job, resume: str | None) -> None:
    """Refuse a folder whose data, or with ``resume`` whose adapter, would be written over."""
    if (job.output / (ADAPTER if resume else DATA)).exists():
        raise DataError(f"{job.output} holds an earlier run: give this one a folder of its own, hydra.run.dir=FOLDER")


def _name(job: Job) -> str:
    if job.trial:
        return f"trial-{job.trial.number}"
    return "-".join(job.choices[group] for group in ("experiment", "source", "model", "lora") if group in job.choices)


def _log_data(run: Run, job: Job, dataset: DatasetBuilder, rows: Dataset) -> None:
    import yaml

    from loraloop.dataset import exports

    run.tags({f"choice.{group}": choice for group, choice in job.choices.items()})
    run.text(yaml.safe_dump(dict(job.config), sort_keys=False), "config.yaml")
    source = job.choices.get("source", "data")
    run.dataset(source, rows.fingerprint, len(rows.train), "training")
    run.dataset(source, rows.fingerprint, len(rows.validation), "validation")
    run.artifact(exports.export(rows, job.output / DATA), "dataset")
    dataset.save(rows)


def _log_result(
    run: Run, job: Job, evaluation: Evaluation, base: Score, score: Score, training: Training, manifest: Manifest
) -> None:
    from loraloop.evaluation import plots, store
    from loraloop.registry import manifest as manifests

    final = {f"final/{name}": value for name, value in score.metrics().items()}
    final |= {f"base/{name}": value for name, value in base.metrics().items()}
    final |= {f"final/{task}/{name}": value for task, each in score.slices.items() for name, value in each.items()}
    run.metrics(final | report.costs(training), training.steps)
    store.write(base, job.output / SCORES / "base")
    store.write(score, job.output / SCORES / ADAPTER)
    run.artifact(job.output / SCORES, SCORES)
    run.table(evaluation.table(score), f"{SCORES}/samples.json")
    run.figure(plots.bars(base, score), "plots/base_vs_adapter.png")
    run.figure(plots.loss_curve(training.history), "plots/loss.png")
    manifests.write(training.adapter, manifest)
    run.artifact(training.adapter, ADAPTER)
