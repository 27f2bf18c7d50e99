"""The child process that reads pages: ``python -m loraloop.ocr.worker SETTINGS``, an image path in, a page out.

It stands apart from the command line's process so that a page that crashes or hangs a decoder, OpenCV or Tesseract
takes only itself down, and so that ``OMP_THREAD_LIMIT=1`` reaches Tesseract and not torch.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from loraloop.ocr.image import Pixels, UnreadableError, load
from loraloop.ocr.preprocess import Prepared, Steps, prepare


def main() -> None:
    """Answer every JSON line of standard input with one on standard output."""
    settings = json.loads(sys.argv[1])
    for line in sys.stdin:
        print(json.dumps(_answer(Path(json.loads(line)), settings)), flush=True)


def _answer(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    started = time.perf_counter()
    try:
        page = load(path, settings["max_pixels"])
        read = _read(page, settings)
    except UnreadableError as error:
        return {"reason": str(error)}
    except Exception as error:  # a page must never take the others down
        return {"reason": f"could not be read: {type(error).__name__}: {error}"}
    height, width = page.shape
    return {"width": width, "height": height, **read, "seconds": round(time.perf_counter() - started, 3)}


def _read(page: Pixels, settings: dict[str, Any]) -> dict[str, Any]:
    prepared = prepare(page, Steps(**settings["steps"]))
    words = _words(_table(prepared.pixels, settings))
    confidences = [word["confidence"] for word in words]
    lengths = [len(word["text"]) for word in words]
    return {
        "text": _text(words),
        "confidence": round(float(np.average(confidences, weights=lengths)), 2) if words else 0.0,
        "words": [[word["text"], word["confidence"], _original(word["box"], prepared, page)] for word in words],
        "steps": prepared.steps,
    }


def _table(pixels: Pixels, settings: dict[str, Any]) -> str:
    import pytesseract

    config, seconds = f"--psm {settings['psm']}", settings["timeout_seconds"]
    try:
        return str(pytesseract.image_to_data(pixels, lang=settings["language"], config=config, timeout=seconds))
    except RuntimeError as error:  # pytesseract's only sign of a timeout is its text
        late = "timeout" in str(error)
        raise UnreadableError(f"took longer than {seconds:g} s" if late else f"Tesseract failed: {error}") from error


def _words(table: str) -> list[dict[str, Any]]:
    """The words of Tesseract's TSV; text and confidence come from this one pass."""
    header, *rows = [line.split("\t") for line in table.splitlines()]
    words = []
    for row in rows:
        cell = dict(zip(header, row, strict=False))
        if cell["level"] == "5" and cell.get("text", "").strip():
            words.append(
                {
                    "text": cell["text"].strip(),
                    "confidence": round(max(0.0, float(cell["conf"])), 2),
                    "box": [int(cell[side]) for side in ("left", "top", "width", "height")],
                    "line": (cell["block_num"], cell["par_num"], cell["line_num"]),
                }
            )
    return words


def _text(words: list[dict[str, Any]]) -> str:
    lines: dict[tuple[str, ...], list[str]] = {}
    for word in words:
        lines.setdefault(word["line"], []).append(word["text"])
    return "\n".join(" ".join(line) for line in lines.values())


def _original(box: list[int], prepared: Prepared, page: Pixels) -> list[int]:
    """The upright box, in pixels of the image as decoded, around a box on the prepared page."""
    left, top, width, height = box
    corners = np.array([[left, top], [left + width, top], [left, top + height], [left + width, top + height]])
    points = (corners - prepared.matrix[:, 2]) @ np.linalg.inv(prepared.matrix[:, :2]).T
    bounds = np.array([page.shape[1], page.shape[0]])
    low = np.clip(np.floor(points.min(axis=0)), 0, bounds).astype(int)
    high = np.clip(np.ceil(points.max(axis=0)), 0, bounds).astype(int)
    return [int(low[0]), int(low[1]), int(high[0] - low[0]), int(high[1] - low[1])]


if __name__ == "__main__":
    main()
