"""Experiments of a multirun that differ only in their adapters, trained at once on one frozen base."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from loraloop.core import console
from loraloop.workflows.experiment import Experiment, Values
from loraloop.workflows.same_base import same_base

if TYPE_CHECKING:
    from loraloop.protocols import Run
    from loraloop.records import Call, Dataset, Estimate, Training
    from loraloop.trainer.pack import PackedTrial
    from loraloop.trainer.sft import Sft

log = logging.getLogger(__name__)

Result = Values | None | Exception


class Supply(Protocol):
    """Where a sweep's jobs come from, and where their results go as soon as they end."""

    def tell(self, index: int, result: Result) -> None:
        """Take the result of the job that came as number ``index``, from 0."""

    def more(self, free: int) -> Sequence[Call]:
        """The next jobs, at most ``free``; their numbers go on from those that came before."""


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job that is ready to train; ``index`` is its place in the multirun's batch."""

    index: int
    experiment: Experiment
    rows: Dataset
    estimate: Estimate


def run(calls: Sequence[Call], max_trials: int, supply: Supply | None = None) -> list[Result]:
    """Run jobs, packed where that is possible, and return for each the result of a run on its own.

    Args:
        calls: Jobs of one multirun.
        max_trials: The most that train at once; memory may allow fewer.
        supply: Told of every result at once, and asked for a job whenever a place of a pack is free.

    Returns:
        What each job returned or raised, in order; those of ``supply`` come last.
    """
    return _Batch(calls, max_trials, supply).run()


class _Batch:
    """The jobs of a batch, those of ``supply`` included, and what became of them."""

    def __init__(self, calls: Sequence[Call], max_trials: int, supply: Supply | None) -> None:
        self.calls, self.max_trials, self.supply = list(calls), max_trials, supply
        self.results: dict[int, Result] = {}

    def run(self) -> list[Result]:
        """Carry out group after group; jobs that came meanwhile and fit no pack make the next groups."""
        begun = 0
        while begun < len(self.calls):
            waiting = [index for index in range(begun, len(self.calls)) if index not in self.results]
            begun = len(self.calls)
            for group in _groups(self.calls, waiting):
                self._together(group)
        return [self.results[index] for index in range(len(self.calls))]

    def _end(self, index: int, result: Result) -> None:
        self.results[index] = result
        if self.supply:
            self.supply.tell(index, result)

    def _together(self, group: Sequence[int]) -> None:
        """Carry out jobs of one kind."""
        reason = self._obstacle(group) if len(group) > 1 and self.max_trials > 1 else None
        if reason:
            log.warning("%s jobs run one by one, because they cannot be packed: %s", len(group), reason)
        if reason or len(group) == 1 or self.max_trials == 1:
            for index in group:
                self._end(index, _alone(self.calls[index]))
            return
        ready = [prepared for index in group if (prepared := self._prepare(index))]
        size = min(self.max_trials, _capacity(ready)) if ready else 1
        if ready:
            _PackedJobs(self, ready).train(size)

    def _obstacle(self, group: Sequence[int]) -> str | None:
        from loraloop.trainer import pack

        experiments = [_experiment(self.calls[index]) for index in group]
        skeleton = experiments[0].skeleton()
        reasons = (pack.obstacle(each.trainer, each.lora, skeleton.model) for each in experiments)
        return next((reason for reason in reasons if reason), None)

    def _prepare(self, index: int) -> PreparedJob | None:
        """A job that is ready to train; one that cannot be has ended."""
        experiment = _experiment(self.calls[index])
        try:
            with console.redirect_output(experiment.job):
                return PreparedJob(index, experiment, *experiment.prepare())
        except Exception as error:
            self._end(index, error)
            return None

    def join(self, kind: str | None, free: int) -> list[PreparedJob]:
        """The supply's next jobs for ``free`` places of a pack of a kind; those of other kinds wait for its end."""
        if self.supply is None:
            return []
        first = len(self.calls)
        self.calls += self.supply.more(free)
        joining = [index for index in range(first, len(self.calls)) if _kind(self.calls[index]) == kind]
        return [prepared for index in joining if (prepared := self._prepare(index))]


class _PackedJobs:
    """Jobs that train at once, with their runs; each is concluded as soon as its training ends.

    Args:
        batch: Whose jobs they are.
        ready: Those that take the first places; after them come the batch's further jobs.
    """

    def __init__(self, batch: _Batch, ready: Sequence[PreparedJob]) -> None:
        self.batch, self.waiting = batch, list(ready)
        self.jobs: list[PreparedJob] = []  # that have begun, in the order of the pack's trials
        self.kind = _kind(batch.calls[ready[0].index])
        self.open: dict[int, tuple[ExitStack, Run]] = {}

    def train(self, places: int) -> None:
        """Train the jobs and those that take their places, so many at once."""
        from loraloop.trainer import pack

        first, rows = self.waiting[0].experiment, self.waiting[0].rows
        with first.loaded() as self.loaded, ExitStack() as self.every:
            self.references = first.references(self.loaded, rows)
            with same_base(self.loaded, first.model, first.lora):
                if trials := self._take(places):
                    pack.train(self.loaded, trials, rows, self._settle)

    def _take(self, free: int) -> list[PackedTrial]:
        """Begin waiting jobs for free places; one that cannot begin has ended, and the next takes its place."""
        begun: list[PackedTrial] = []
        while self.waiting and len(begun) < free:
            prepared = self.waiting.pop(0)
            try:
                begun.append(self._begin(prepared))
            except Exception as error:
                self.batch._end(prepared.index, error)
        return begun

    def _begin(self, prepared: PreparedJob) -> PackedTrial:
        from loraloop.trainer.pack import PackedTrial

        experiment, job = prepared.experiment, prepared.experiment.job
        with ExitStack() as entered:
            run = entered.enter_context(experiment.running(prepared.rows, prepared.estimate))
            experiment.log_start(run, prepared.estimate, self.references.base)
            self.open[len(self.jobs)] = (self.every.enter_context(entered.pop_all()), run)
        self.jobs.append(prepared)
        return PackedTrial(
            settings=_settings(experiment),
            lora=experiment.lora,
            run=run,
            output=job.output,
            on_evaluation=job.trial.report if job.trial else None,
        )

    def _settle(self, ended: Mapping[int, Training | Exception], free: int) -> list[PackedTrial]:
        """Conclude the jobs whose training has ended, and begin those that take their places."""
        for position, training in ended.items():
            self.batch._end(self.jobs[position].index, self._conclude(position, training))
        begun = self._take(free)
        if free > len(begun):
            self.waiting += self.batch.join(self.kind, free - len(begun))
            begun += self._take(free - len(begun))
        return begun

    def _conclude(self, position: int, training: Training | Exception) -> Result:
        prepared, (stack, run) = self.jobs[position], self.open.pop(position)
        try:
            with stack, console.redirect_output(prepared.experiment.job):
                if isinstance(training, Exception):
                    raise training
                return prepared.experiment.conclude(run, prepared.rows, self.loaded, self.references, training)
        except Exception as error:
            return error


def _experiment(call: Call) -> Experiment:
    return Experiment(job=call.job, **call.parts)


def _groups(calls: Sequence[Call], indices: Sequence[int]) -> list[list[int]]:
    """Indices of jobs that are of one kind, in the order of their first; a job without a kind is on its own."""
    groups: dict[str, list[int]] = {}
    for index in indices:
        groups.setdefault(_kind(calls[index]) or f"alone {index}", []).append(index)
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


def _alone(call: Call) -> Result:
    try:
        with console.redirect_output(call.job):
            result: Result = call()
    except Exception as error:
        return error
    return result


def _capacity(ready: Sequence[PreparedJob]) -> int:
    from loraloop.trainer import pack

    settings, skeleton = _settings(ready[0].experiment), ready[0].experiment.skeleton()
    rows = settings.fitting(ready[0].rows.train, skeleton.tokenizer, "training").sides[0]
    loras = [job.experiment.lora for job in ready]
    base = skeleton.base
    return pack.capacity(settings, loras, skeleton.model, rows, quantization=base.quantization, dtype=base.dtype)


def _settings(experiment: Experiment) -> Sft:
    return cast("Sft", experiment.trainer)  # no other trainer packs
