"""Adapters for the demonstration, registered without asking the gate: a weak one, and a broken one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loraloop.records import Collection
from loraloop.source import screening
from loraloop.workflows import rows as data

if TYPE_CHECKING:
    from loraloop.protocols import Ocr, Source
    from loraloop.records import Example, Version
    from loraloop.workflows.experiment import Experiment


@dataclass(frozen=True)
class Mistaught:
    """A source whose examples carry wrong answers: an adapter that is trained on it is broken."""

    source: Source

    def collect(self, ocr: Ocr | None) -> Collection:
        """Every example with the answer of the one before it."""
        found = screening.collect(self.source, ocr).examples
        swapped = ((*each.past, found[at - 1].messages[-1]) for at, each in enumerate(found))
        return Collection(tuple(replace(each, messages=said) for each, said in zip(found, swapped, strict=True)))

    def correct(self, example: Example, answer: str) -> bool:
        """Whether ``answer`` solves ``example`` by the rule of the source."""
        return self.source.correct(example, answer)


def register_ungated(experiment: Experiment, name: str) -> Version:
    """Train and evaluate an adapter in a folder and a run called ``name``, and register it without asking the gate."""
    job = replace(experiment.job, output=experiment.job.output / name)
    experiment = replace(experiment, job=job)
    skeleton, loaded = experiment.skeleton(), experiment.model.load()
    rows = data.prepare(experiment.source, experiment.ocr, experiment.dataset, skeleton.tokenizer)
    estimate = experiment.trainer.estimate(skeleton, experiment.lora, rows)
    with experiment.running(rows, estimate, name) as run:
        base = experiment.base_score(loaded, rows)
        experiment.log_start(run, estimate, base)
        training = experiment.train(loaded, rows, run)
        _, manifest = experiment.measure(run, rows, loaded, base, training)
        return experiment.registry.register(training.adapter, manifest, run.id)
