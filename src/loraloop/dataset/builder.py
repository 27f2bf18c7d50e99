"""The dataset part: examples become rendered rows on two sides, with a fingerprint."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import orjson
from pydantic import Field, field_validator, model_validator

from loraloop.core.chat_templates import NAMED
from loraloop.core.part import part
from loraloop.core.prompt_format import placeholders
from loraloop.core.rendering import Renderer
from loraloop.dataset import exports
from loraloop.dataset.split import hold_out, rank
from loraloop.errors import ConfigError, DataError, ModelError
from loraloop.records import Collection, Dataset, Example, Quarantined, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

USUAL_SHARE = 0.2
ENOUGH = 20
"""Held-out rows on which the gate gives a verdict (``gate.min_rows``)."""
MOST = 3
"""Of ``MOST`` rows at most one is held out for a verdict; with fewer, too little is left to learn from."""
_log = logging.getLogger(__name__)


@part
class DatasetBuilder:
    """How examples become a dataset."""

    template: str = "{instruction}\n{input}\n> "
    validation_share: Annotated[float, Field(gt=0, lt=1)] | Literal["auto"] = "auto"
    seed: Annotated[int, Field(ge=0)] = 0
    min_rows: Annotated[int, Field(ge=2)] = 5
    max_rows: Annotated[int, Field(ge=2)] | None = None
    export: Path | None = None

    @field_validator("template")
    @classmethod
    def _known_placeholders(cls, value: str) -> str:
        if value not in NAMED:
            placeholders(value)
        return value

    @field_validator("export")
    @classmethod
    def _known_suffix(cls, value: Path | None) -> Path | None:
        if value is not None:
            exports.layout(value)
        return value

    @model_validator(mode="after")
    def _ordered_bounds(self) -> DatasetBuilder:
        if self.max_rows is not None and self.max_rows < self.min_rows:
            raise ValueError(
                f"max_rows={self.max_rows} is below min_rows={self.min_rows}: raise the one or lower the other"
            )
        return self

    def check(self) -> None:
        """Refuse an export folder that exists, before any work.

        Raises:
            ConfigError: It exists; nothing is overwritten.
        """
        if self.export is not None and not self.export.suffix and self.export.exists():
            raise ConfigError(f"dataset.export={self.export} exists already: remove it or name another folder")

    def build(self, collection: Collection, tokenizer: PreTrainedTokenizerBase | None = None) -> Dataset:
        """Render, cap, split and fingerprint the examples.

        Both sides keep the collection's order. Examples that leave nothing to ask are set aside and counted. With
        ``max_rows``, a seeded choice of that many rows stays.

        Raises:
            ConfigError: ``template`` is a chat template, and there is no tokenizer or it has none.
            DataError: Fewer than ``min_rows`` rows, or fewer than two groups of them, are usable.
        """
        rows, unusable = self.render(collection.examples, tokenizer)
        quarantined = (*collection.quarantined, *unusable)
        if len(rows) < self.min_rows:
            raise DataError(_too_few(len(rows), self.min_rows, quarantined))
        rows = self._capped(rows)
        scored = sum(row.example.label is not False for row in rows)
        held_out = hold_out([row.example for row in rows], self._share(scored, len(rows) - scored), self.seed)
        train = tuple(row for place, row in enumerate(rows) if place not in held_out)
        validation = tuple(row for place, row in enumerate(rows) if place in held_out)
        return Dataset(
            train=train, validation=validation, fingerprint=fingerprint(train, validation), quarantined=quarantined
        )

    def _share(self, rows: int, bad: int) -> float:
        """The part that is held out: ``auto`` is a fifth, and of few rows as many as the gate needs for a verdict.

        Args:
            rows: Those that can be measured on.
            bad: Those beside them that are labelled bad, of which the same part is held out.
        """
        if self.validation_share != "auto":
            return self.validation_share
        if not MOST * ENOUGH <= rows < ENOUGH / USUAL_SHARE:
            return USUAL_SHARE
        _log.info(
            "%d rows%s %d held out instead of %d, so that the gate can decide; dataset.validation_share=%g holds out a "
            "fifth",
            rows,
            f" and {bad} labelled bad, which nothing is measured on: of the others about" if bad else ":",
            ENOUGH,
            round(USUAL_SHARE * rows),
            USUAL_SHARE,
        )
        return ENOUGH / rows

    def save(self, dataset: Dataset) -> Path | None:
        """Write ``dataset`` to ``export``, if that is set; see :func:`loraloop.dataset.exports.export`."""
        return None if self.export is None else exports.export(dataset, self.export)

    def render(
        self, examples: Iterable[Example], tokenizer: PreTrainedTokenizerBase | None
    ) -> tuple[list[Row], list[Quarantined]]:
        """Every example as the model will see it, and those that leave nothing to ask or to learn.

        Raises:
            ConfigError: ``template`` is a chat template, and there is no tokenizer or it has none.
        """
        renderer = Renderer(self.template, tokenizer)
        renderer.check()
        rows: list[Row] = []
        unusable: list[Quarantined] = []
        apart = 0
        for number, example in enumerate(examples, 1):
            try:
                made = renderer.rows(example)
                _require(made)
            except (ModelError, ValueError) as error:
                unusable.append(Quarantined(f"{example.provenance.source} example {number}", str(error)))
            else:
                rows += made
                apart += len(made) > 1
        if apart:
            _log.warning(
                "dataset.template=%s renders an answer otherwise once more turns follow: each answer of %d "
                "conversations is a row of its own",
                self.template,
                apart,
            )
        return rows, unusable

    def _capped(self, rows: list[Row]) -> list[Row]:
        if self.max_rows is None or len(rows) <= self.max_rows:
            return rows
        chosen = sorted(range(len(rows)), key=lambda place: rank(rows[place].example, self.seed))[: self.max_rows]
        return [rows[place] for place in sorted(chosen)]


def fingerprint(train: Sequence[Row], validation: Sequence[Row]) -> str:
    """SHA-256 over every row's prompt, completion, rejected answer, task and earlier answers, in order and by side.

    A row that is labelled bad or good differs from one without a label: supervised training learns nothing from a bad
    one, and KTO nothing from one without. Provenance is left out on purpose: the same data read from another folder is
    the same dataset.
    """
    digest = hashlib.sha256()
    for name, rows in (("train", train), ("validation", validation)):
        digest.update(orjson.dumps([name, len(rows)]) + b"\n")
        for row in rows:
            said = [row.prompt, row.completion, row.rejected, row.example.task, *row.earlier]
            label = row.example.label
            said += [] if label is None else ["good" if label else "bad"]
            digest.update(orjson.dumps(said) + b"\n")
    return digest.hexdigest()


def _require(rows: Sequence[Row]) -> None:
    """Check that there is something to ask and to learn.

    Raises:
        ValueError: There is not, or a text is no Unicode.
    """
    for row in rows:
        example = row.example
        if not example.raw and not (row.prompt.strip() and any(message.text.strip() for message in example.past)):
            raise ValueError("nothing is asked: instruction and input are empty in the template")
        if not row.completion.strip():
            raise ValueError("the output is empty: there is nothing to learn")
        try:
            f"{row.prompt}{row.completion}{row.rejected}{example.task}".encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"half of a surrogate pair ({error.object[error.start]!r}) is not a character") from None


def _too_few(usable: int, needed: int, quarantined: Sequence[Quarantined]) -> str:
    reasons = Counter(item.reason for item in quarantined)
    aside = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common(5))
    return (
        f"{usable} usable rows, at least {needed} are needed (dataset.min_rows); {len(quarantined)} were set aside"
        f"{': ' + aside if aside else ''}. Collect more or lower dataset.min_rows"
    )
