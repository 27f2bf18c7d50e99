"""Pages of files that hold several: ``scan.tiff#2`` is the second page of ``scan.tiff``, as a path of its own."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core.extras import require

if TYPE_CHECKING:
    from PIL.Image import Image

PDF = ".pdf"
SEVERAL = frozenset({".tif", ".tiff", PDF})
SCALE = 300 / 72  # a PDF's lengths are in points; 300 pixels an inch suit OCR


def located(image: Path) -> tuple[Path, int | None]:
    """The file that an image is in, and which of its pages it is, from 1; ``None`` for a file as a whole."""
    name, _, number = image.name.rpartition("#")
    if name and number.isascii() and number.isdigit() and int(number) and not image.exists():
        file = image.with_name(name)
        if file.is_file():
            return file, int(number)
    return image, None


def apart(file: Path) -> list[Path]:
    """The pages of a TIFF or PDF with several as ``FILE#1``, ``FILE#2`` and so on; any other file as it is.

    A file that cannot be opened, or a PDF without the package that reads it, stays whole: its reader says why.
    """
    count = _count(file) if file.suffix.lower() in SEVERAL else 1
    return [file.with_name(f"{file.name}#{number}") for number in range(1, count + 1)] if count > 1 else [file]


def pdf_size(file: Path, number: int) -> tuple[int, int]:
    """Width and height in pixels of a PDF's page, as it is rendered.

    Raises:
        MissingDependencyError: The package that reads PDFs is not installed.
        ValueError: The file cannot be opened, or has no such page.
    """
    width, height = _page(file, number).get_size()
    return math.ceil(width * SCALE), math.ceil(height * SCALE)


def pdf_image(file: Path, number: int) -> Image:
    """A PDF's page as a picture; raises what :func:`pdf_size` does."""
    image: Image = _page(file, number).render(scale=SCALE).to_pil().convert("RGB")
    return image


def _page(file: Path, number: int) -> Any:
    pdfium = require("pypdfium2", "pdf")
    try:
        document = pdfium.PdfDocument(file)
        if number > len(document):
            raise ValueError(f"it has {len(document)} pages")
        return document[number - 1]
    except pdfium.PdfiumError as error:
        raise ValueError(str(error)) from error


def _count(file: Path) -> int:
    from PIL import Image

    try:
        if file.suffix.lower() == PDF:
            return len(require("pypdfium2", "pdf").PdfDocument(file))
        with Image.open(file, formats=("TIFF",)) as image:
            return int(getattr(image, "n_frames", 1))
    except Exception:  # whatever a damaged file does to a decoder, its reader meets it again and tells
        return 1
