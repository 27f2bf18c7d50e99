"""RapidOCR: PP-OCR's networks, which come inside its wheel and need no program."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from loraloop.core.part import part
from loraloop.ocr import installed
from loraloop.ocr.reading import Reading
from loraloop.records import Page


@part
class RapidOcr(Reading):
    """Reads pages with PP-OCR on ONNX Runtime in child processes, one thread each; see :class:`Reading` for the keys.

    Slower than Tesseract, and better on heavy noise.
    """

    def check(self) -> None:
        """Look for the packages.

        Raises:
            MissingDependencyError: RapidOCR or its runtime is not installed; the message holds the install line.
        """
        installed.rapidocr("ocr")

    def read(self, images: Iterable[Path]) -> Iterator[Page]:
        """Read images in the order given; see :class:`loraloop.protocols.Ocr`.

        Raises:
            MissingDependencyError: RapidOCR or its runtime is not installed.
        """
        self.check()
        return self._pages(images, engine="rapidocr", name=installed.rapidocr_name())
