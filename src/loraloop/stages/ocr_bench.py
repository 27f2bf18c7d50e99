"""Stage ``ocr_bench``: how accurately and how fast this machine reads, engine by engine."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic, console
from loraloop.core.progress import Progress
from loraloop.errors import ConfigError, MissingDependencyError
from loraloop.ocr import plots, preprocess, score
from loraloop.ocr.rapid import RapidOcr
from loraloop.ocr.tesseract import Tesseract
from loraloop.source.vault import benchmark_data, fonts
from loraloop.source.vault.pictures import png

if TYPE_CHECKING:
    from loraloop.protocols import Ocr
    from loraloop.records import Job, Page

HALVES = {"held_out": benchmark_data.HELD_OUT, "tune": benchmark_data.TUNE}
OURS = Tesseract(cache=None, timeout_seconds=600)
PLAIN = replace(OURS, invert=False, denoise=False, normalize=False, deskew=False, upscale=False, unrule=False)
RAPID = RapidOcr(cache=None, timeout_seconds=600)
PICTURES: dict[str, Ocr] = {
    "grey": PLAIN,
    "Otsu": replace(PLAIN, threshold="otsu"),
    "adaptive": replace(PLAIN, threshold="adaptive"),
    "tesseract_psm6": OURS,
    "psm6 + Otsu": replace(OURS, threshold="otsu"),
    "rapidocr": RAPID,
}
DOCUMENTS: dict[str, Ocr] = {
    "plain, psm 3": replace(PLAIN, psm=3),
    "plain, psm 6": PLAIN,
    "tesseract_psm6": OURS,
    "tesseract_psm3": replace(OURS, psm=3),
    "tesseract_auto": replace(OURS, psm="auto"),
    "rapidocr": RAPID,
}
BASELINES = ("plain, psm 3", "plain, psm 6")
NO_LIMIT = 64  # threads; Tesseract never starts as many
SPEEDS: dict[str, tuple[Tesseract, int]] = {
    "pytesseract, its default threads": (replace(OURS, engine="pytesseract", workers=1, threads=NO_LIMIT), 1),
    "pytesseract, OMP_THREAD_LIMIT=1": (replace(OURS, engine="pytesseract", workers=1), 2),
    "tesseract_psm6, 1 worker": (replace(OURS, workers=1), 4),
    "tesseract_psm6, 2 workers": (replace(OURS, workers=2), 8),
}
"""Each with how often it reads the same pictures: the slow ones less often."""
WARM = 2  # pages per worker before the clock starts: processes start, engines load


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture on disk, its kind and its text."""

    path: Path
    kind: str
    text: str


def ocr_bench(job: Job, half: str, pictures: int, documents: int, timed: int) -> None:
    """Read pictures with known text with every installed engine; print tables and leave them with a plot."""
    if half not in HALVES:
        raise ConfigError(f"half={half}: there are {', '.join(HALVES)}; report figures of held_out, tune on tune")
    with TemporaryDirectory() as folder:
        cases = _saved(
            [benchmark_data.case(HALVES[half], index) for index in range(pictures)], Path(folder) / "pictures"
        )
        pages = _saved(
            [benchmark_data.document(HALVES[half], index) for index in range(documents)], Path(folder) / "documents"
        )
        total = len(cases) * len(PICTURES) + len(pages) * len(DOCUMENTS) + timed * 15
        with Progress("reading", "page", total) as progress:
            report: dict[str, Any] = {
                "half": half,
                "fonts": fonts.found(tuple(HALVES[half].style.faces)),
                "pictures": _errors(cases, progress) if cases else {},
                "documents": _words(pages, progress) if pages else {},
                "speed": _speeds([case.path for case in cases[:timed]], progress) if timed else {},
            }
    _print(report)
    numbers, plot = job.output / "ocr_bench.json", job.output / "ocr_bench.png"
    with atomic.write(numbers) as stream:
        stream.write(json.dumps(report, indent=2).encode() + b"\n")
    plots.bench(report).savefig(plot)
    console.facts("files", {"numbers": str(numbers), "plot": str(plot)})


def _saved(cases: Sequence[benchmark_data.Case], folder: Path) -> list[Sample]:
    folder.mkdir()
    samples = []
    for index, case in enumerate(cases):
        path = folder / f"{index:04d}-{case.kind}.png"
        path.write_bytes(png(case.pixels))
        samples.append(Sample(path, case.kind, case.text))
    return samples


def _read(engines: Mapping[str, Ocr], samples: Sequence[Sample], progress: Progress) -> Iterator[tuple[str, list[str]]]:
    """The texts of the samples by each engine that is installed."""
    for name, engine in engines.items():
        try:
            read = engine.read(sample.path for sample in samples)
        except MissingDependencyError as error:
            print(f"{name} is left out: {error}")
            continue
        yield name, [page.text for page in _ticking(read, name, progress)]


def _errors(samples: Sequence[Sample], progress: Progress) -> dict[str, dict[str, float]]:
    """Character error by engine and kind, and the share of pictures above 95%."""
    results = {}
    for name, texts in _read(PICTURES, samples, progress):
        errors = _scored(score.character_error, samples, texts)
        above = sum(error < 0.05 for error in errors) / len(errors)
        results[name] = {"all": _mean(errors), "> 95%": round(above, 4), **_by_kind(samples, errors)}
    return results


def _words(samples: Sequence[Sample], progress: Progress) -> dict[str, dict[str, float]]:
    """Word F1 by engine and layout, in order too, and the page that is furthest behind plain Tesseract."""
    texts = dict(_read(DOCUMENTS, samples, progress))
    found = {name: _scored(score.word_f1, samples, read) for name, read in texts.items()}
    best = [max(pair) for pair in zip(*(found[name] for name in BASELINES), strict=True)]
    results = {}
    for name, read in texts.items():
        whole = {
            "all": _mean(found[name]),
            "in order": _mean(_scored(score.ordered_word_f1, samples, read)),
            "least - plain": round(min(mine - theirs for mine, theirs in zip(found[name], best, strict=True)), 4),
        }
        results[name] = {**whole, **_by_kind(samples, found[name])}
    return results


def _speeds(images: Sequence[Path], progress: Progress) -> dict[str, Any]:
    """The same pictures per second, from file to words, for every row; and preprocessing's share of the time."""
    import psutil

    rates: dict[str, float] = {}
    inside = 0.0
    for name, (engine, rounds) in SPEEDS.items():
        warm = WARM * (engine.workers or 1)
        pages = list(_stamped(_ticking(engine.read([*images[:1]] * warm + [*images] * rounds), name, progress)))
        rates[name] = round(rounds * len(images) / (pages[-1][0] - pages[warm - 1][0]), 3)
        if engine.workers == 1 and engine.engine == "auto":
            inside = sum(page.seconds for _, page in pages[warm : warm + len(images)])
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
        preprocess.prepare(load(image, OURS.max_pixels), preprocess.Steps())
    passed = time.perf_counter() - start
    cv2.setNumThreads(threads)
    return passed


def _stamped(pages: Iterable[Page]) -> Iterator[tuple[float, Page]]:
    for page in pages:
        yield time.perf_counter(), page


def _ticking(pages: Iterable[Page], name: str, progress: Progress) -> Iterator[Page]:
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


def _print(report: Mapping[str, Any]) -> None:
    print(f"half {report['half']}, in {', '.join(Path(face).stem for face in report['fonts']) or 'the built-in face'}")
    if errors := report["pictures"]:
        _transposed("pictures: characters wrong, %; and share of pictures above 95%", errors, 100, 2)
    if words := report["documents"]:
        _transposed("documents: word F1; the least: of any page, against plain Tesseract's better mode", words, 1, 3)
    if speed := report["speed"]:
        rates = speed["images_per_second"]
        default, limited, *_ = rates.values()
        rows = [[name, f"{rate:.2f}", f"{rate / default:.1f}", f"{rate / limited:.1f}"] for name, rate in rates.items()]
        console.table("speed, file to words", ["engine", "images/s", "x default", "x OMP=1"], rows)
        print(f"preprocessing takes {speed['preprocessing_share']:.0%} of the time; load {speed['load_average']:.1f}")


def _transposed(title: str, results: Mapping[str, Mapping[str, float]], factor: float, digits: int) -> None:
    rows = [
        [kind, *(f"{factor * row[kind]:.{digits}f}" for row in results.values())]
        for kind in next(iter(results.values()))
    ]
    console.table(title, ["", *results], rows)
