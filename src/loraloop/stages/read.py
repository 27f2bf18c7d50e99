"""Stage ``read``: OCR alone, one row per page."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import console, tables
from loraloop.core.progress import Progress
from loraloop.errors import ConfigError
from loraloop.records import Quarantined

if TYPE_CHECKING:
    from loraloop.protocols import Ocr, Source
    from loraloop.records import Job

HOW = frozenset({"workers", "threads", "cache", "timeout_seconds", "actors", "address", "shard", "batch"})
"""Keys of an engine, or of the cluster that it runs on, that do not change what it reads, only how fast."""


@dataclass
class _Tally:
    """What the summary tells, counted as rows pass by."""

    pages: int = 0
    kept: int = 0
    characters: int = 0
    confidence: float = 0.0
    aside: list[Quarantined] = field(default_factory=list)

    def add(self, row: Mapping[str, Any], kept: bool) -> None:
        self.pages += 1
        self.kept += kept
        self.characters += len(row["text"])
        self.confidence += row["confidence"]
        if row["status"] != "ok":
            self.aside.append(Quarantined(row["image"], row["reason"]))

    def show(self, file: Path, seconds: float) -> None:
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
            },
        )
        console.quarantine(self.aside)


def read(job: Job, output: str, source: Source, ocr: Ocr) -> None:
    """Read the images of ``source`` into ``output``, one row per page, in the order of the images.

    The same command goes on where a stopped one was: rows live in ``output.part`` until all are there, and an image
    that changed since is read again. Text is written as it was read; ``source.secrets`` acts when rows become examples.

    Raises:
        ConfigError: The source has no images, ``output`` is not a file of rows, or rows of a stopped run were read with
            other settings of the engine.
        DataError: ``output`` cannot be written.
    """
    from loraloop.ocr.journal import Journal

    file = _file(output)
    images = _images(source)
    tally, started = _Tally(), time.perf_counter()
    shown = Progress("reading", "page", len(images))
    with tables.writing(file), Journal(file, _settings(job)) as journal, shown as progress:

        def seen(row: Mapping[str, Any], kept: bool) -> None:
            tally.add(row, kept)
            progress.advance()

        try:
            journal.fill(images, ocr.read, seen)
        except KeyboardInterrupt:
            print(f"stopped: {len(journal)} pages are kept; the same command goes on from there", file=sys.stderr)
            raise
        journal.finish(images)
    tally.show(file, time.perf_counter() - started)


def _file(output: str) -> Path:
    file = Path(output).expanduser()
    if file.suffix != ".jsonl" or file.is_dir():
        raise ConfigError(f"output={output}: one JSON row per page is written to a .jsonl file: output=pages.jsonl")
    return file


def _images(source: Source) -> Sequence[Path]:
    images: Callable[[], Sequence[Path]] | None = getattr(source, "images", None)
    if images is None:
        raise ConfigError("stage=read reads images, and this source has none: source=vault source.path=scans/")
    return images()


def _settings(job: Job) -> dict[str, str]:
    """What decides the text of a page, the same for an engine and for that engine on a cluster."""
    flat = {name.removeprefix("reader."): value for name, value in console.flatten(job.config["ocr"]).items()}
    return {name: value for name, value in flat.items() if name not in HOW}
