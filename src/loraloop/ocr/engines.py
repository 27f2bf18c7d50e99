"""What turns a prepared page into words: Tesseract by its library or by its program, or RapidOCR.

They live in the worker process only. Text, confidence and boxes of a page come from one pass over it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from loraloop.ocr.image import Pixels, UnreadableError

BUSY = 10.0  # a page may take this many times its processor time on a busy machine


class LateError(UnreadableError):
    """A page took longer than it may."""


@dataclass(frozen=True, slots=True)
class Found:
    """A word on the prepared page.

    Attributes:
        confidence: 0..100.
        box: Left, top, width and height in pixels.
        line: Words with the same number stand on one line.
    """

    text: str
    confidence: float
    box: tuple[int, int, int, int]
    line: int


class Engine(Protocol):
    """Anything that reads a prepared page."""

    def words(self, pixels: Pixels, psm: int, seconds: float) -> list[Found]:
        """The words of a page in reading order.

        Args:
            pixels: Dark letters on light ground.
            psm: Tesseract's page segmentation mode; other engines ignore it.
            seconds: Processor time that is left; engines give up after :data:`BUSY` times as much by the clock.

        Raises:
            LateError: There was not enough time.
            UnreadableError: The engine failed.
        """
        ...


class TesseractLibrary:
    """Tesseract's library through tesserocr: the model is loaded once and used for every page.

    Args:
        language: Language data, several joined by ``+``.
        data: Folder of the language data.
    """

    def __init__(self, language: str, data: str) -> None:
        from tesserocr import PyTessBaseAPI

        self._api = PyTessBaseAPI(path=data, lang=language)

    def words(self, pixels: Pixels, psm: int, seconds: float) -> list[Found]:
        """See :class:`Engine`."""
        height, width = pixels.shape
        self._api.SetPageSegMode(psm)
        self._api.SetImageBytes(np.ascontiguousarray(pixels).tobytes(), width, height, 1, width)
        try:
            if not self._api.Recognize(max(1, round(1000 * BUSY * seconds))):
                raise LateError
            return _from_table(self._api.GetTSVText(0))
        finally:
            # A page's words would otherwise enter the document dictionary and change how later pages are read.
            self._api.ClearAdaptiveClassifier()
            self._api.Clear()


class TesseractProgram:
    """The program ``tesseract`` through pytesseract: a new process, and the model loaded again, for every page."""

    def __init__(self, language: str) -> None:
        self._language = language

    def words(self, pixels: Pixels, psm: int, seconds: float) -> list[Found]:
        """See :class:`Engine`."""
        import pytesseract

        try:
            table = pytesseract.image_to_data(
                pixels, self._language, f"--psm {psm}", timeout=max(0.001, BUSY * seconds)
            )
        except RuntimeError as error:  # pytesseract's only sign of a timeout is its text
            raise LateError if "timeout" in str(error) else UnreadableError(f"Tesseract failed: {error}") from error
        return _from_table(str(table))


class Rapid:
    """PP-OCR's detector and recogniser through RapidOCR on ONNX Runtime, one thread."""

    def __init__(self) -> None:
        from rapidocr import RapidOCR

        threads = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
        quiet = {"Global.log_level": "critical"}
        # Pages are levelled before: the third network, which finds lines that stand on their head, is left out.
        self._read: Any = RapidOCR(params={**threads, **quiet, "Global.use_cls": False, "Global.return_word_box": True})

    def words(self, pixels: Pixels, psm: int, seconds: float) -> list[Found]:
        """See :class:`Engine`."""
        seen = self._read(np.repeat(pixels[..., None], 3, axis=2))
        return _from_lines(seen.word_results or ())


def _from_table(table: str) -> list[Found]:
    """The words (level 5) of Tesseract's TSV; a row of level 4 begins a line. Columns as in its ``tsvrenderer.cpp``."""
    found: list[Found] = []
    line = 0
    for row in table.splitlines():
        cells = row.split("\t")
        line += cells[0] == "4"
        if cells[0] == "5" and len(cells) > 11 and cells[11].strip():
            left, top, width, height = map(int, cells[6:10])
            confidence = round(max(0.0, float(cells[10])), 2)
            found.append(Found(cells[11].strip(), confidence, (left, top, width, height), line))
    return found


def _from_lines(pieces: Iterable[Iterable[Any]]) -> list[Found]:
    """Words from pieces of lines, each a sequence of (text, score in 0..1, four corners), from the top down.

    Pieces side by side, whose middles are closer than half a height, stand on one line and are read from the left.
    """
    found: list[Found] = []
    row: list[Found] = []
    for piece in pieces:
        words = [_word(text, score, np.asarray(corners)) for text, score, corners in piece]
        if row and words and abs(_middle(words[0]) - _middle(row[0])) > row[0].box[3] / 2:
            found += sorted(row, key=lambda word: word.box[0])
            row = []
        row += [replace(word, line=len(found)) for word in words]
    return found + sorted(row, key=lambda word: word.box[0])


def _word(text: str, score: float, corners: NDArray[Any]) -> Found:
    left, top = (int(low) for low in corners.min(axis=0))
    right, bottom = (int(high) for high in corners.max(axis=0))
    return Found(text, round(100 * float(score), 2), (left, top, right - left, bottom - top), 0)


def _middle(word: Found) -> float:
    return word.box[1] + word.box[3] / 2
