"""Experiments of a multirun that differ only in their adapters, trained at once on one frozen base."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from loraloop.core import console
from loraloop.workflows.experiment import Experiment, References, Values
from loraloop.workflows.same_base import same_base

if TYPE_CHECKING:
    from loraloop.protocols import Run
    from loraloop.records import Call, Dataset, Estimate, LoadedModel, Training
    from loraloop.trainer.pack import PackedTrial
    from loraloop.trainer.sft import Sft

log = logging.getLogger(__name__)

Result = Values | None | Exception


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job that is ready to train."""

    experiment: Experiment
    rows: Dataset
    estimate: Estimate


def run(calls: Sequence[Call], max_trials: int) -> list[Result]:
    """Run jobs, packed where that is possible, and return for each the result of a run on its own.

    Args:
        calls: Jobs of one multirun.
        max_trials: The most that train at once; memory may allow fewer.

    Returns:
        What each job returned or raised, in order.
    """
    results: dict[int, Result] = {}
    for group in _groups(calls):
        results |= zip(group, _together([calls[index] for index in group], max_trials), strict=True)
    return [results[index] for index in range(len(calls))]


def _groups(calls: Sequence[Call]) -> list[list[int]]:
    """Indices of jobs that are of one kind, in the order of their first; a job without a kind is on its own."""
    groups: dict[str, list[int]] = {}
    for index, call in enumerate(calls):
        groups.setdefault(_kind(call) or f"alone {index}", []).append(index)
    return list(groups.values())


def _kind(call: Call) -> str | None:
    """What must be equal in jobs that pack; nothing for a job that never does."""
    from loraloop.trainer.pack import PACKABLE_LORA, PACKABLE_TRAINER

    if call.job.stage != "experiment" or any(call.parts.get(key) is not None for key in ("resume", "continue_from")):
        return None
    config = dict(call.job.config)
    config["lora"] = {key: value for key, value in config["lora"].items() if key not in PACKABLE_LORA}
    config["trainer"] = {key: value for key, value in config["trainer"].items() if key not in PACKABLE_TRAINER}
    return json.dumps(config, sort_keys=True, default=str)


def _together(calls: Sequence[Call], max_trials: int) -> Iterator[Result]:
    """Results of jobs of one kind, in order."""
    if len(calls) == 1 or max_trials == 1:
        return map(_alone, calls)
    experiments = [Experiment(job=call.job, **call.parts) for call in calls]
    if reason := _obstacle(experiments):
        log.warning("%s jobs run one by one, because they cannot be packed: %s", len(calls), reason)
        return map(_alone, calls)
    prepared = [_prepare(experiment) for experiment in experiments]
    ready = [each for each in prepared if isinstance(each, PreparedJob)]
    size = min(max_trials, _capacity(ready)) if ready else 1
    trained = iter([result for start in range(0, len(ready), size) for result in _train(ready[start : start + size])])
    return (next(trained) if isinstance(each, PreparedJob) else each for each in prepared)


def _alone(call: Call) -> Result:
    try:
        with console.redirect_output(call.job):
            result: Result = call()
    except Exception as error:
        return error
    return result


def _obstacle(experiments: Sequence[Experiment]) -> str | None:
    from loraloop.trainer import pack

    skeleton = experiments[0].skeleton()
    reasons = (pack.obstacle(experiment.trainer, experiment.lora, skeleton.model) for experiment in experiments)
    return next((reason for reason in reasons if reason), None)


def _capacity(ready: Sequence[PreparedJob]) -> int:
    from loraloop.trainer import pack

    settings, skeleton = _settings(ready[0].experiment), ready[0].experiment.skeleton()
    rows = settings.fitting(ready[0].rows.train, skeleton.tokenizer, "training").sides[0]
    loras = [job.experiment.lora for job in ready]
    base = skeleton.base
    return pack.capacity(settings, loras, skeleton.model, rows, quantization=base.quantization, dtype=base.dtype)


def _settings(experiment: Experiment) -> Sft:
    return cast("Sft", experiment.trainer)  # no other trainer packs


def _prepare(experiment: Experiment) -> PreparedJob | Exception:
    try:
        with console.redirect_output(experiment.job):
            return PreparedJob(experiment, *experiment.prepare())
    except Exception as error:
        return error


def _train(ready: Sequence[PreparedJob]) -> list[Result]:
    from loraloop.trainer import pack

    first, rows = ready[0].experiment, ready[0].rows
    with ExitStack() as every, first.loaded() as loaded:
        stacks = [every.enter_context(ExitStack()) for _ in ready]
        runs = [
            stack.enter_context(job.experiment.running(job.rows, job.estimate))
            for stack, job in zip(stacks, ready, strict=True)
        ]
        references = first.references(loaded, rows)
        for job, run in zip(ready, runs, strict=True):
            job.experiment.log_start(run, job.estimate, references.base)
        trials = [_packed_trial(job.experiment, run) for job, run in zip(ready, runs, strict=True)]
        with same_base(loaded, first.model, first.lora):
            trainings = pack.train(loaded, trials, rows)
        results: list[Result] = []
        for job, stack, run, training in zip(ready, stacks, runs, trainings, strict=True):
            try:
                with stack, console.redirect_output(job.experiment.job):
                    results.append(_conclude(job, run, loaded, references, training))
            except Exception as error:
                results.append(error)
    return results


def _packed_trial(experiment: Experiment, run: Run) -> PackedTrial:
    from loraloop.trainer.pack import PackedTrial

    job = experiment.job
    on_evaluation = job.trial.report if job.trial else None
    return PackedTrial(
        settings=_settings(experiment), lora=experiment.lora, run=run, output=job.output, on_evaluation=on_evaluation
    )


def _conclude(
    job: PreparedJob, run: Run, loaded: LoadedModel, references: References, training: Training | Exception
) -> Values:
    if isinstance(training, Exception):
        raise training
    return job.experiment.conclude(run, job.rows, loaded, references, training)
