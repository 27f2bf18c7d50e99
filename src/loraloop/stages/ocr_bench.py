"""Stage ``ocr_bench``: how accurately and how fast this machine reads, engine by engine."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic, console
from loraloop.core.progress import Progress
from loraloop.errors import ConfigError
from loraloop.ocr import plots
from loraloop.source.vault import benchmark_data, fonts
from loraloop.workflows.ocr_benchmark import engines, measure, tables

if TYPE_CHECKING:
    from loraloop.records import Job

HALVES = {"held_out": benchmark_data.HELD_OUT, "tune": benchmark_data.TUNE}


def ocr_bench(job: Job, half: str, pictures: int, documents: int, timed: int) -> None:
    """Read pictures with known text with every installed engine; print tables, and write them and a plot to files.

    Raises:
        ConfigError: ``half`` is neither ``held_out`` nor ``tune``.
    """
    if half not in HALVES:
        raise ConfigError(f"half={half}: there are {', '.join(HALVES)}; report figures of held_out, tune on tune")
    report = _measured(half, pictures, documents, timed)
    tables.show(report)
    numbers, plot = job.output / "ocr_bench.json", job.output / "ocr_bench.png"
    with atomic.write(numbers) as stream:
        stream.write(json.dumps(report, indent=2).encode() + b"\n")
    plots.bench(report).savefig(plot)
    console.facts("files", {"numbers": str(numbers), "plot": str(plot)})


def _measured(half: str, pictures: int, documents: int, timed: int) -> dict[str, Any]:
    drawn = HALVES[half]
    with TemporaryDirectory() as folder:
        cases = measure.save([benchmark_data.case(drawn, at) for at in range(pictures)], Path(folder) / "pictures")
        pages = measure.save(
            [benchmark_data.document(drawn, at) for at in range(documents)], Path(folder) / "documents"
        )
        rounds = measure.ROUNDS * sum(times for _, times in engines.for_speed().values())
        total = len(cases) * len(engines.for_pictures()) + len(pages) * len(engines.for_documents()) + timed * rounds
        with Progress("reading", "page", total) as progress:
            return {
                "half": half,
                "fonts": fonts.found(tuple(drawn.style.faces)),
                "pictures": measure.picture_errors(cases, progress) if cases else {},
                "documents": measure.document_words(pages, progress) if pages else {},
                "speed": measure.speeds([case.path for case in cases[:timed]], progress) if timed else {},
            }
