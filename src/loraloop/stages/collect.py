"""Stage ``collect``: examples from a source into a file."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ConfigError
from loraloop.source import screening
from loraloop.workflows.rows import QUARANTINED

if TYPE_CHECKING:
    from loraloop.dataset.builder import DatasetBuilder
    from loraloop.protocols import Ocr, Source
    from loraloop.records import Job


def collect(job: Job, source: Source, ocr: Ocr, dataset: DatasetBuilder) -> None:
    """Collect, split and write to ``dataset.export``, whose suffix chooses the format."""
    if dataset.export is None:
        raise ConfigError(
            "stage=collect needs dataset.export=FILE (.jsonl .alpaca.jsonl .csv .parquet .toon, or a folder)"
        )
    built = dataset.build(screening.collect(source, ocr))
    path = dataset.save(built)
    console.quarantine(built.quarantined, every=job.output / QUARANTINED)
    tasks = Counter(row.example.task or "(none)" for row in (*built.train, *built.validation))
    console.facts(
        "collected",
        {
            "file": str(path),
            "rows": f"{len(built.train)} train, {len(built.validation)} validation",
            "tasks": ", ".join(f"{task} {count}" for task, count in sorted(tasks.items())),
            "fingerprint": built.fingerprint,
        },
    )
