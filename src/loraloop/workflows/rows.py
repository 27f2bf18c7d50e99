"""What the stages that train or measure share: checks against the base's shape, and the dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.lora import Lora
    from loraloop.protocols import Ocr, Source, Trainer
    from loraloop.records import Dataset, LoadedModel

QUARANTINED = "quarantined.jsonl"


def fits(skeleton: LoadedModel, lora: Lora, trainer: Trainer) -> None:
    """Check LoRA and trainer against the base's shape, without its weights.

    Raises:
        ConfigError: With every mismatch: unknown targets, too large a rank, too long a sequence.
    """
    problems: list[str] = []
    try:
        lora.check_model(skeleton.model)
    except ConfigError as error:
        problems += error.problems
    try:
        trainer.check_model(skeleton.model.config)
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(*problems)


def prepare(
    source: Source, ocr: Ocr, dataset: DatasetBuilder, tokenizer: PreTrainedTokenizerBase, output: Path | None = None
) -> Dataset:
    """Collect from ``source``, render and split, and say what was set aside; ``output`` takes a list that is long."""
    built = dataset.build(source.collect(ocr), tokenizer)
    console.quarantine(built.quarantined, every=output and output / QUARANTINED)
    return built
