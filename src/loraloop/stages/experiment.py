"""Stage ``experiment``: from raw input to a registered adapter."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.workflows.experiment import Experiment, Values
from loraloop.workflows.multirun import cache

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.gate.gate import Gate
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Source, Tracker, Trainer
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


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
    registry: MlflowRegistry,
    resume: str | None,
    objective: str | list[str],
) -> Values:
    """Collect, train, evaluate base and adapter on the same held-out rows, register, and ask the gate.

    With ``resume``, the folder of an interrupted job with the same settings and data, training goes on from its newest
    checkpoint and ends where it would have ended. A trial of a sweep is not registered; the sweep's best one is.

    Returns:
        The results named by ``objective``, one or several of :data:`loraloop.workflows.experiment.OBJECTIVES`.

    Raises:
        DataError: The job's folder holds an earlier run.
        PrunedError: The sweep that the job belongs to has given the trial up.
    """
    course = Experiment(
        job=job,
        source=source,
        ocr=ocr,
        dataset=dataset,
        model=model,
        lora=lora,
        trainer=trainer,
        evaluation=evaluation,
        gate=gate,
        tracker=tracker,
        registry=registry,
        resume=resume,
        objective=objective,
    )
    rows, estimate = course.prepare()
    with course.running(rows, estimate) as run, cache.base(job, model, lora) as loaded:
        base = course.base_score(loaded, rows)
        with _interruptible(job):
            before = Path(resume) if resume else None
            on_evaluation = job.trial.report if job.trial else None
            trained, training = trainer.train(loaded, lora, rows, run, job.output, before, on_evaluation)
        return course.conclude(run, rows, loaded, base, trained, training)


@contextmanager
def _interruptible(job: Job) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        again = shlex.join(["loraloop", *job.overrides, f"resume={job.output}"])
        print(f"interrupted; the step in progress was kept. To go on: {again}")
        raise
