"""Reading many images into a file of rows, which a stopped run continues."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import console, tables
from loraloop.core.progress import Progress
from loraloop.records import Quarantined

if TYPE_CHECKING:
    from loraloop.protocols import Ocr
    from loraloop.records import Job

HOW = frozenset({"workers", "threads", "cache", "timeout_seconds", "actors", "address", "shard", "batch"})
"""Keys of an engine, or of the cluster that it runs on, that do not change what it reads, only how fast."""

DOUBTFUL = 70
"""Mean confidence below which a page is named: most of its words are wrong."""


@dataclass
class Tally:
    """Counts of the pages of a run, for its summary."""

    pages: int = 0
    kept: int = 0
    characters: int = 0
    confidence: float = 0.0
    aside: list[Quarantined] = field(default_factory=list)
    doubtful: list[str] = field(default_factory=list)

    def add(self, row: Mapping[str, Any], kept: bool) -> None:
        """Count a page; ``kept`` is one that an earlier, stopped run read."""
        self.pages += 1
        self.kept += kept
        self.characters += len(row["text"])
        self.confidence += row["confidence"]
        if row["status"] != "ok":
            self.aside.append(Quarantined(row["image"], row["reason"]))
        elif row["text"] and row["confidence"] < DOUBTFUL:
            self.doubtful.append(row["image"])

    def show(self, file: Path, seconds: float) -> None:
        """Print the summary."""
        read, fresh = self.pages - len(self.aside), self.pages - self.kept
        console.facts(
            "read",
            {
                "file": str(file),
                "pages": f"{self.pages} ({read} read, {len(self.aside)} quarantined)",
                "characters": f"{self.characters:,}",
                "confidence": f"{self.confidence / read:.1f} (mean of the pages read)" if read else "-",
                "speed": f"{fresh / seconds:.1f} pages/s ({fresh} in {console.duration(seconds)})",
                **({"kept": f"{self.kept} of a stopped run"} if self.kept else {}),
                **({"doubtful": _doubt(self.doubtful)} if self.doubtful else {}),
            },
        )
        console.quarantine(self.aside)


def _doubt(images: Sequence[str]) -> str:
    more = f" and {len(images) - 1} more" if len(images) > 1 else ""
    return f"{images[0]}{more}: confidence below {DOUBTFUL}; is it writing that ocr.language names?"


def read_into(file: Path, images: Sequence[Path], ocr: Ocr, settings: Mapping[str, str]) -> None:
    """Read ``images`` into ``file``, one row each, in their order, and print a summary.

    Args:
        file: Where the rows go; they lie beside it, in ``.part``, until all are there.
        images: What is read; rows that a stopped run left are taken over.
        ocr: Reads them.
        settings: What decides the text of a page (:func:`deciding`).

    Raises:
        ConfigError: Rows of a stopped run were read with other settings.
        DataError: ``file`` cannot be written.
    """
    from loraloop.ocr.journal import Journal

    tally, start = Tally(), time.perf_counter()
    with (
        tables.writing(file),
        Journal(file, dict(settings)) as journal,
        Progress("reading", "page", len(images)) as progress,
    ):

        def seen(row: Mapping[str, Any], kept: bool) -> None:
            tally.add(row, kept)
            progress.advance()

        try:
            journal.fill(images, ocr.read, seen)
        except KeyboardInterrupt:
            print(f"stopped: {len(journal)} pages are kept; the same command goes on from there", file=sys.stderr)
            raise
        journal.finish(images)
    tally.show(file, time.perf_counter() - start)


def deciding(job: Job) -> dict[str, str]:
    """The settings that decide the text of a page: the same for an engine and for that engine on a cluster."""
    flat = {name.removeprefix("reader."): value for name, value in console.flatten(job.config["ocr"]).items()}
    return {name: value for name, value in flat.items() if name not in HOW}
