"""Tesseract, after OpenCV has made the page easy for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from loraloop.core.part import part
from loraloop.ocr import installed
from loraloop.ocr.reading import Reading
from loraloop.records import Page


@part
class Tesseract(Reading):
    """Reads pages with Tesseract's LSTM recogniser in child processes, one thread each.

    Beside the keys of :class:`Reading`, whose ``threshold`` is off because the recogniser prefers grey:

    Attributes:
        engine: Tesseract's library with its model kept (``tesserocr``), its program for each page (``pytesseract``),
            or ``auto``: the library where it is installed.
        psm: Tesseract's page segmentation mode; 6 is one uniform block of text, ``auto`` chooses for each page.
        language: Tesseract's language data, several joined by ``+``.
        fallback: A second engine for pages of low confidence.
        fallback_below: Pages with a lower mean word confidence (0..100) are read again by it.
    """

    engine: Literal["auto", "tesserocr", "pytesseract"] = "auto"
    psm: Annotated[int, Field(ge=3, le=13)] | Literal["auto"] = 6
    language: Annotated[str, Field(pattern=r"^\w+(\+\w+)*$")] = "eng"
    fallback: Literal["rapidocr"] | None = None
    fallback_below: Annotated[float, Field(ge=0, le=100)] = 60.0

    def check(self) -> None:
        """Find the engines and the language data.

        Raises:
            MissingDependencyError: One is not installed; the message holds the line that installs it.
        """
        installed.tesseract(self.engine, self.language)
        if self.fallback is not None:
            installed.rapidocr(f"ocr.fallback={self.fallback}")

    def read(self, images: Iterable[Path]) -> Iterator[Page]:
        """Read images in the order given; see :class:`loraloop.protocols.Ocr`.

        Raises:
            MissingDependencyError: An engine or the language data is not installed.
        """
        self.check()
        way = installed.tesseract(self.engine, self.language)
        second: dict[str, Any] = {}
        if self.fallback is not None:
            second = {"fallback_below": self.fallback_below, "fallback_name": installed.rapidocr_name()}
        return self._pages(
            images,
            engine=way,
            name=installed.tesseract_name(way),
            data=installed.data(),
            psm=self.psm,
            language=self.language,
            **second,
        )
