"""What an experiment is made of, named once; whatever trains takes these parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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

    @staticmethod
    def misfits(parts: Mapping[str, Any]) -> list[str]:
        """What does not fit between the parts, though each is sound alone."""
        gate, evaluation, found = parts["gate"], parts["evaluation"], []
        if "few_shot" in gate.must_beat and not evaluation.few_shot:
            found.append(
                "gate.must_beat names few_shot, and evaluation.few_shot=0 does not measure it: set "
                "evaluation.few_shot=3, or leave few_shot out of gate.must_beat"
            )
        if gate.general == "refuse" and not evaluation.general:
            found.append(
                "gate.general=refuse needs what evaluation.general=false does not measure: set evaluation.general=true "
                "or gate.general=warn"
            )
        return found
