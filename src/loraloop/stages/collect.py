"""Stage ``collect``: examples from a source into a file."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from loraloop.core import console
from loraloop.core.chat_templates import NAMED
from loraloop.errors import ConfigError
from loraloop.source import screening
from loraloop.workflows.rows import QUARANTINED, unmeasured

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Ocr, Source
    from loraloop.records import Job


@dataclass(frozen=True, kw_only=True)
class Collect:
    """Collects, splits and writes to ``dataset.export``, whose suffix chooses the format.

    Attributes:
        CHECKED: The parts that must be there; of the model only the tokenizer is read, and for chat templates only.
    """

    CHECKED: ClassVar[frozenset[str]] = frozenset({"source", "ocr", "dataset"})

    job: Job
    source: Source
    ocr: Ocr
    dataset: DatasetBuilder
    model: CausalLM

    def run(self) -> None:
        """Write the file, and print what is in it and what was set aside.

        Raises:
            ConfigError: ``dataset.export`` is not set.
            DataError: Too few examples are usable.
            ModelError: The template needs the model's tokenizer, which is missing or damaged.
        """
        if self.dataset.export is None:
            raise ConfigError(
                "stage=collect needs dataset.export=FILE (.jsonl .alpaca.jsonl .csv .parquet .toon, or a folder)"
            )
        tokenizer = self.model.skeleton().tokenizer if self.dataset.template in NAMED else None
        built = self.dataset.build(screening.collect(self.source, self.ocr), tokenizer)
        path = self.dataset.save(built)
        console.quarantine(built.quarantined, every=self.job.output / QUARANTINED)
        tasks = Counter(row.example.task or "(none)" for row in (*built.train, *built.validation))
        console.facts(
            "collected",
            {
                "file": str(path),
                "rows": f"{len(built.train)} train, {len(built.validation)} validation{unmeasured(built)}",
                "tasks": ", ".join(f"{task} {count}" for task, count in sorted(tasks.items())),
                "fingerprint": built.fingerprint,
            },
        )
