"""The child process that reads pages: ``python -m loraloop.ocr.worker SETTINGS``, an image path in, a page out.

It stands apart from the command line's process so that a page that crashes or hangs a decoder, OpenCV or Tesseract
takes only itself down, and so that ``OMP_THREAD_LIMIT=1`` reaches Tesseract and not torch. Engines are made by the
first page that needs them and serve all that follow.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from loraloop.ocr.attempts import AUTO, Attempts, Clock
from loraloop.ocr.engines import Engine, Found, LateError, Rapid, TesseractLibrary, TesseractProgram
from loraloop.ocr.image import Pixels, UnreadableError, load
from loraloop.ocr.preprocess import Steps

GRACE_SECONDS = 10.0  # processor time to load an engine and to prepare a page


def main() -> None:
    """Answer every JSON line of standard input with one on standard output."""
    import cv2

    cv2.setNumThreads(1)  # one process per CPU: more threads than that would fight
    settings = json.loads(sys.argv[1])
    reader = Reader(settings)
    for line in sys.stdin:
        _limit(settings["timeout_seconds"])
        image, simply = json.loads(line)
        print(json.dumps(reader.answer(Path(image), simply)), flush=True)


def _limit(seconds: float) -> None:
    """Let the system end this process (SIGXCPU) when a page takes far more processor time than it may."""
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(time.process_time() + seconds + GRACE_SECONDS)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


class Reader:
    """Reads pages one after the other.

    Args:
        settings: What a part of :mod:`loraloop.ocr` sends, in plain values.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = settings

    def answer(self, path: Path, simply: bool = False) -> dict[str, Any]:
        """The page's facts in plain values, or the reason why there are none.

        Args:
            path: The image.
            simply: Whether the page is read once and no other way is tried.
        """
        started = time.perf_counter()
        try:
            page = load(path, self._settings["max_pixels"])
            read = self._read(page, simply)
        except LateError:
            return {"late": True}
        except UnreadableError as error:
            return {"reason": str(error)}
        except Exception as error:  # a page must never take the others down
            return {"reason": f"could not be read: {type(error).__name__}: {error}"}
        height, width = page.shape
        return {"width": width, "height": height, **read, "seconds": round(time.perf_counter() - started, 3)}

    def _read(self, page: Pixels, simply: bool) -> dict[str, Any]:
        clock = Clock(self._settings["timeout_seconds"])
        attempts = Attempts(self._engine, page, Steps(**self._settings["steps"]), clock)
        reading = attempts.read(self._modes[:1] if simply else self._modes)
        words, prepared = reading.words, reading.prepared
        confidence, engine = mean_confidence(words), self._settings["name"]
        below = self._settings.get("fallback_below")
        if below is not None and confidence < below:
            again = self._rapid.words(prepared.pixels, 0, clock.left())
            if again:
                words, engine, confidence = again, self._settings["fallback_name"], mean_confidence(again)
        boxes = prepared.original(word.box for word in words)
        return {
            "text": text_of(words),
            "confidence": confidence,
            "words": [
                [word.text, word.confidence, [int(left), int(top), int(right - left), int(bottom - top)]]
                for word, (left, top, right, bottom) in zip(words, boxes, strict=True)
            ],
            "engine": engine,
            "steps": (*prepared.steps, f"psm {reading.mode}") if len(self._modes) > 1 else prepared.steps,
        }

    @cached_property
    def _modes(self) -> tuple[int, ...]:
        psm = self._settings.get("psm", 0)
        return AUTO if psm == "auto" else (psm,)

    @cached_property
    def _engine(self) -> Engine:
        kind = self._settings["engine"]
        if kind == "rapidocr":
            return self._rapid
        language = self._settings["language"]
        return TesseractLibrary(language, self._settings["data"]) if kind == "tesserocr" else TesseractProgram(language)

    @cached_property
    def _rapid(self) -> Engine:
        return Rapid()


def mean_confidence(words: list[Found]) -> float:
    """Mean of the words' confidences, weighed by their letters; 0.0 for no words."""
    if not words:
        return 0.0
    return round(float(np.average([word.confidence for word in words], weights=[len(word.text) for word in words])), 2)


def text_of(words: list[Found]) -> str:
    """The page's lines."""
    lines: dict[int, list[str]] = {}
    for word in words:
        lines.setdefault(word.line, []).append(word.text)
    return "\n".join(" ".join(line) for line in lines.values())


if __name__ == "__main__":
    main()
