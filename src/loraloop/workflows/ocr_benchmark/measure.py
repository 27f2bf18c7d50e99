"""Measuring engines on pictures whose text is known."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core.progress import Progress
from loraloop.errors import MissingDependencyError
from loraloop.ocr import preprocess, score
from loraloop.source.vault.pictures import png
from loraloop.workflows.ocr_benchmark import engines

if TYPE_CHECKING:
    from loraloop.protocols import Ocr
    from loraloop.records import Page
    from loraloop.source.vault import benchmark_data

WARM = 2
"""Pages per worker before the clock starts: processes start, engines load."""
ROUNDS = 3
"""How often each engine is timed."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture on disk, its kind and its text."""

    path: Path
    kind: str
    text: str


def save(cases: Sequence[benchmark_data.Case], folder: Path) -> list[Sample]:
    """Write the cases' pictures into a new folder."""
    folder.mkdir()
    samples = []
    for index, case in enumerate(cases):
        path = folder / f"{index:04d}-{case.kind}.png"
        path.write_bytes(png(case.pixels))
        samples.append(Sample(path, case.kind, case.text))
    return samples


def _read(readers: Mapping[str, Ocr], samples: Sequence[Sample], progress: Progress) -> Iterator[tuple[str, list[str]]]:
    """The texts of the samples by each engine that is installed."""
    for name, engine in readers.items():
        try:
            read = engine.read(sample.path for sample in samples)
        except MissingDependencyError as error:
            print(f"{name} is left out: {error}")
            continue
        yield name, [page.text for page in _counted(read, name, progress)]


def picture_errors(samples: Sequence[Sample], progress: Progress) -> dict[str, dict[str, float]]:
    """Character error by engine and kind, and the share of pictures above 95%."""
    results = {}
    for name, texts in _read(engines.for_pictures(), samples, progress):
        errors = _scored(score.character_error, samples, texts)
        above = sum(error < 0.05 for error in errors) / len(errors)
        results[name] = {"all": _mean(errors), "> 95%": round(above, 4), **_by_kind(samples, errors)}
    return results


def document_words(samples: Sequence[Sample], progress: Progress) -> dict[str, dict[str, float]]:
    """Word F1 by engine and layout, the same with order counted, and the worst page against plain Tesseract."""
    texts = dict(_read(engines.for_documents(), samples, progress))
    found = {name: _scored(score.word_f1, samples, read) for name, read in texts.items()}
    best = [max(pair) for pair in zip(*(found[name] for name in engines.BASELINES), strict=True)]
    results = {}
    for name, read in texts.items():
        whole = {
            "all": _mean(found[name]),
            "in order": _mean(_scored(score.ordered_word_f1, samples, read)),
            "least - plain": round(min(mine - theirs for mine, theirs in zip(found[name], best, strict=True)), 4),
        }
        results[name] = {**whole, **_by_kind(samples, found[name])}
    return results


def speeds(images: Sequence[Path], progress: Progress) -> dict[str, Any]:
    """Pictures read per second, from file to words, and preprocessing's share of that time.

    The engines take turns, so that other work on the machine meets all of them; the median of the rounds counts.
    """
    import psutil

    rounds: dict[str, list[float]] = {name: [] for name in engines.for_speed()}
    inside = 0.0
    for _ in range(ROUNDS):
        for name, (engine, times) in engines.for_speed().items():
            warm = WARM * (engine.workers or 1)
            pages = list(_stamped(_counted(engine.read([*images[:1]] * warm + [*images] * times), name, progress)))
            rounds[name].append(times * len(images) / (pages[-1][0] - pages[warm - 1][0]))
            if engine.workers == 1 and engine.engine == "auto":
                inside = sum(page.seconds for _, page in pages[warm : warm + len(images)])
    rates = {name: round(statistics.median(each), 3) for name, each in rounds.items()}
    load = round(psutil.getloadavg()[0], 2)
    share = round(_preparing(images) / inside, 3)
    return {"images_per_second": rates, "preprocessing_share": share, "load_average": load}


def _preparing(images: Sequence[Path]) -> float:
    """Seconds that decoding and preprocessing take in one thread."""
    import cv2

    from loraloop.ocr.image import load

    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    start = time.perf_counter()
    for image in images:
        preprocess.prepare(load(image, engines.default().max_pixels), preprocess.Steps())
    passed = time.perf_counter() - start
    cv2.setNumThreads(threads)
    return passed


def _stamped(pages: Iterable[Page]) -> Iterator[tuple[float, Page]]:
    for page in pages:
        yield time.perf_counter(), page


def _counted(pages: Iterable[Page], name: str, progress: Progress) -> Iterator[Page]:
    for page in pages:
        progress.advance(facts=name)
        yield page


def _scored(metric: Callable[[str, str], float], samples: Sequence[Sample], texts: Sequence[str]) -> list[float]:
    return [metric(sample.text, text) for sample, text in zip(samples, texts, strict=True)]


def _by_kind(samples: Sequence[Sample], values: Sequence[float]) -> dict[str, float]:
    kinds = dict.fromkeys(sample.kind for sample in samples)
    return {
        kind: _mean([value for sample, value in zip(samples, values, strict=True) if sample.kind == kind])
        for kind in kinds
    }


def _mean(values: Sequence[float]) -> float:
    return round(sum(values) / len(values), 5)
