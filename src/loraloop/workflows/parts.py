"""What an experiment is made of, named once; whatever trains takes these parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.evaluation.evaluation import Evaluation
    from loraloop.gate.gate import Gate
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Source, Tracker, Trainer
    from loraloop.records import Job
    from loraloop.registry.mlflow import MlflowRegistry


@dataclass(frozen=True, kw_only=True)
class ExperimentParts:
    """The job and the parts of an experiment: each field but ``job`` is a config group.

    A stage that trains is a subclass; its own fields are further groups, or keys of its file in ``conf/stage/``.
    """

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
