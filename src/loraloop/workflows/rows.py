"""What the stages that train or measure share: checks against the base's shape, and the dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.core.chat_templates import NAMED
from loraloop.errors import ConfigError
from loraloop.source import screening

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.lora import Lora
    from loraloop.protocols import Ocr, Source, Trainer
    from loraloop.records import Dataset, LoadedModel

log = logging.getLogger(__name__)

QUARANTINED = "quarantined.jsonl"


def unmeasured(rows: Dataset) -> str:
    """How many held-out rows no model is measured on, because they are labelled bad; empty where none is."""
    bad = sum(row.example.label is False for row in rows.validation)
    return f" ({bad} labelled bad: not measured on)" * bool(bad)


def fits(skeleton: LoadedModel, lora: Lora, trainer: Trainer) -> None:
    """Check LoRA and trainer against the base's shape, without its weights.

    Raises:
        ConfigError: With every mismatch: unknown targets, too large a rank, too long a sequence, an unfit init.
    """
    problems: list[str] = []
    checks: tuple[Callable[[], None], ...] = (
        lambda: lora.check_model(skeleton.model),
        lambda: trainer.check_model(skeleton.model.config),
        lambda: trainer.check_lora(lora),
    )
    for check in checks:
        try:
            check()
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(*problems)


def hint_chat(skeleton: LoadedModel, dataset: DatasetBuilder) -> None:
    """Say that a base has a chat template where the data's template is another; the bundled one is no chat model."""
    plain = dataset.template not in NAMED and not skeleton.base.name.startswith("bundled:")
    if plain and skeleton.tokenizer.chat_template:
        log.info(
            "%s has a chat template: if it was tuned to follow instructions, dataset=chat asks it in that form",
            skeleton.base.name,
        )


def prepare(
    source: Source, ocr: Ocr, dataset: DatasetBuilder, tokenizer: PreTrainedTokenizerBase, output: Path | None = None
) -> Dataset:
    """Collect from ``source`` and screen it, render and split, and say what was set aside.

    ``output`` takes a list that is long.
    """
    built = dataset.build(screening.collect(source, ocr), tokenizer)
    console.quarantine(built.quarantined, every=output and output / QUARANTINED)
    return built
