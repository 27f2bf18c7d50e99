"""What the stages that train or measure share: checks against the base's shape, and the dataset."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.dataset.template import CHAT
from loraloop.errors import ConfigError
from loraloop.source import screening

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.lora import Lora
    from loraloop.protocols import Ocr, Source, Trainer
    from loraloop.records import Collection, Dataset, LoadedModel

log = logging.getLogger(__name__)

QUARANTINED = "quarantined.jsonl"
USUAL_SHARE = 0.2
ENOUGH = 20
"""Held-out rows on which the gate gives a verdict (``gate.min_rows``)."""


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
    plain = dataset.template != CHAT and not skeleton.base.name.startswith("bundled:")
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
    built = split(screening.collect(source, ocr), dataset, tokenizer)
    console.quarantine(built.quarantined, every=output and output / QUARANTINED)
    return built


def split(collection: Collection, dataset: DatasetBuilder, tokenizer: PreTrainedTokenizerBase | None = None) -> Dataset:
    """The built dataset; of 60 to 99 rows 20 are held out, unless another share than the usual one is set."""
    built = dataset.build(collection, tokenizer)
    held_out, every = len(built.validation), len(built.train) + len(built.validation)
    if held_out >= ENOUGH or every < 3 * ENOUGH or dataset.validation_share != USUAL_SHARE:
        return built
    log.info(
        "%d rows: %d held out instead of %d, so that the gate can decide; any dataset.validation_share but %g is kept",
        every,
        ENOUGH,
        held_out,
        USUAL_SHARE,
    )
    return replace(dataset, validation_share=ENOUGH / every).build(collection, tokenizer)
