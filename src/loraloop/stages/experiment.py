"""Stage ``experiment``: from raw input to a registered adapter."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop import __version__
from loraloop.errors import DataError
from loraloop.stages import admission, console, data

if TYPE_CHECKING:
    from peft import PeftModel

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.gate.gate import Gate
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Registry, Run, Source, Tracker, Trainer
    from loraloop.records import Dataset, Job, LoadedModel, Manifest, Score, Training, Version

SCORES = "evaluation"
ADAPTER = "adapter"
DATA = "dataset.jsonl"


def experiment(
    job: Job,
    source: Source,
    ocr: Ocr,
    dataset: DatasetBuilder,
    model: CausalLM,
    lora: Lora,
    trainer: Trainer,
    evaluation: Evaluation,
    gate: Gate,
    tracker: Tracker,
    registry: Registry,
    resume: str | None = None,
) -> float:
    """Collect, train, evaluate base and adapter on the same held-out rows, register, and ask the gate.

    With ``resume``, the folder of an interrupted job with the same settings and data, training goes on from its newest
    checkpoint and ends where it would have ended.

    Returns:
        The adapter's loss on the held-out rows, which a sweep minimises.

    Raises:
        DataError: The job's folder holds an earlier run.
    """
    _own_folder(job, resume)
    skeleton = data.fits(model, lora, trainer)
    rows = data.prepare(source, ocr, dataset, skeleton.tokenizer)
    estimate = trainer.estimate(skeleton, lora, rows)
    console.data(rows)
    console.estimate(estimate)
    with tracker.start(_name(job)) as run:
        run.params({**console.flatten(job.config), "seed": str(job.seed), "lora.alpha": str(lora.effective_alpha)})
        run.metrics({f"estimate/{name}": float(value) for name, value in asdict(estimate).items()})
        _log_data(run, job, dataset, rows)
        loaded = model.load()
        base = evaluation.score_base(loaded, rows.validation, source.correct)
        with _interruptible(job):
            before = Path(resume) if resume else None
            trained, training = trainer.train(loaded, lora, rows, run, job.output, before)
        score = evaluation.score(trained, loaded.tokenizer, rows.validation, source.correct, "evaluate adapter")
        evaluation.agree(trained, loaded.tokenizer, rows.validation)
        manifest = _manifest(run, loaded, lora, dataset, rows, training.adapter)
        _log_result(run, job, evaluation, base, score, training, manifest)

        def rescore(champion: Version) -> Score | None:
            return _rescore(champion, trained, loaded, evaluation, rows, source)

        verdict = admission.admit(registry, gate, training.adapter, manifest, (score, base), run.id, rescore)
        run.tags(verdict.tags())
        link = run.link
    console.summary(base, score, training, verdict, link, tracker.ui_command)
    return score.loss


def _own_folder(job: Job, resume: str | None) -> None:
    """Refuse a folder whose data, or with ``resume`` whose adapter, would be written over."""
    if (job.output / (ADAPTER if resume else DATA)).exists():
        raise DataError(f"{job.output} holds an earlier run: give this one a folder of its own, hydra.run.dir=FOLDER")


@contextmanager
def _interruptible(job: Job) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        again = shlex.join(["loraloop", *job.overrides, f"resume={job.output}"])
        print(f"interrupted; the step in progress was kept. To go on: {again}")
        raise


def _name(job: Job) -> str:
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
    run: Run,
    job: Job,
    evaluation: Evaluation,
    base: Score,
    score: Score,
    training: Training,
    manifest: Manifest,
) -> None:
    from loraloop.evaluation import plots, store
    from loraloop.registry import manifest as manifests

    final = {f"final/{name}": value for name, value in score.metrics().items()}
    final |= {f"base/{name}": value for name, value in base.metrics().items()}
    final |= {f"final/{task}/{name}": value for task, each in score.slices.items() for name, value in each.items()}
    run.metrics(final | console.costs(training), training.steps)
    store.write(base, job.output / SCORES / "base")
    store.write(score, job.output / SCORES / ADAPTER)
    run.artifact(job.output / SCORES, SCORES)
    run.table(evaluation.table(score), f"{SCORES}/samples.json")
    run.figure(plots.bars(base, score), "plots/base_vs_adapter.png")
    run.figure(plots.loss_curve(training.history), "plots/loss.png")
    manifests.write(training.adapter, manifest)
    run.artifact(training.adapter, ADAPTER)


def _manifest(
    run: Run, loaded: LoadedModel, lora: Lora, dataset: DatasetBuilder, rows: Dataset, adapter: Path
) -> Manifest:
    from loraloop.records import Manifest
    from loraloop.registry import weights

    return Manifest(
        base=loaded.base,
        rank=lora.r,
        alpha=lora.effective_alpha,
        targets=(lora.targets,) if isinstance(lora.targets, str) else tuple(lora.targets),
        dataset_fingerprint=rows.fingerprint,
        template=dataset.template,
        run_id=run.id,
        parent_run_id=None,
        weights_sha256=weights.sha256(adapter / "adapter_model.safetensors"),
        loraloop_version=__version__,
    )


def _rescore(
    champion: Version,
    trained: PeftModel,
    loaded: LoadedModel,
    evaluation: Evaluation,
    rows: Dataset,
    source: Source,
) -> Score | None:
    from loraloop.errors import ModelError
    from loraloop.model import adapters
    from loraloop.registry import manifest as manifests

    try:
        manifests.verify_adapter(loaded.base, champion.manifest)
    except ModelError:
        return None
    with adapters.instead(trained, champion.path) as model:
        return evaluation.score(model, loaded.tokenizer, rows.validation, source.correct, "evaluate champion")
