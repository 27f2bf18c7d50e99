"""Images as OCR takes them: judged by their header, then decoded strictly to grey pixels."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from loraloop.core import leaves
from loraloop.core.hashing import sha256
from loraloop.core.leaves import located
from loraloop.core.transparency import opaque
from loraloop.errors import MissingDependencyError
from loraloop.ocr.colour import grey

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]

FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "JPEG2000")
NAMES = "PNG, JPEG, TIFF, WebP, BMP, GIF or JPEG 2000 image"


class UnreadableError(Exception):
    """An image that cannot be read; the message is the reason, fit for a person."""


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal; empty for what cannot be opened or is no file, such as an endless pipe."""
    file = located(path)[0]
    try:
        return sha256(file) if file.is_file() else ""
    except OSError:
        return ""


def load(path: Path, max_pixels: int) -> Pixels:
    """Decode an image to grey, upright by its EXIF orientation, transparency laid on what shows it.

    Args:
        path: A file in one of :data:`FORMATS`, a PDF, or a page of one: ``scan.tiff#2``.
        max_pixels: Larger images are refused by their header, before a pixel is decoded.

    Raises:
        UnreadableError: The file is missing, empty, not an image, too large, of several frames, truncated or damaged.
    """
    from PIL import Image, UnidentifiedImageError

    file, number = located(path)
    if not file.is_file():
        raise UnreadableError("does not exist" if not file.exists() else "is not a file")
    if file.stat().st_size == 0:
        raise UnreadableError("is empty (0 bytes)")
    if _is_pdf(file):
        return _pdf(file, number or 1, max_pixels)
    # loraloop's own limit is a key that a person can set; Pillow's would warn or raise beside it.
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            with Image.open(file, formats=FORMATS) as image:
                _judge(image, max_pixels, number)
                _whole(file, image, " ".join(str(one.message) for one in said))
                return _grey(image)
    except UnidentifiedImageError as error:
        raise UnreadableError(f"is not a {NAMES}") from error
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, OverflowError) as error:
        raise UnreadableError(f"is damaged or truncated: {error}") from error


def _is_pdf(file: Path) -> bool:
    with file.open("rb") as stream:
        return b"%PDF-" in stream.read(1024)


def _pdf(file: Path, number: int, max_pixels: int) -> Pixels:
    try:
        _limited(*leaves.pdf_size(file, number), max_pixels)
        return _grey(leaves.pdf_image(file, number))
    except MissingDependencyError as error:
        raise UnreadableError(f"is a PDF: {error}") from error
    except ValueError as error:
        raise UnreadableError(f"is a PDF that cannot be read: {error}") from error


def _judge(image: Image, max_pixels: int, number: int | None) -> None:
    frames = getattr(image, "n_frames", 1)
    if number is not None:
        image.seek(number - 1)
    elif frames > 1 and image.format not in {"MPO", "GIF"}:  # a second view, and an animation
        raise UnreadableError(f"has {frames} frames, of which one would be read: save one image per page")
    _limited(image.width, image.height, max_pixels)


def _limited(width: int, height: int, most: int) -> None:
    if width * height > most:
        size = f"{width} x {height} = {width * height / 1e6:.1f} megapixels"
        raise UnreadableError(f"has {size}, more than ocr.max_pixels={most}")


def _whole(path: Path, image: Image, said: str) -> None:
    # Decoders forgive a missing tail, some of the time: look at the end mark before trusting the pixels.
    data = path.read_bytes()
    if image.format == "TIFF" and re.search("runcated|Expecting to read|larger than file", said):
        # Pillow passes over entries of the directory that are cut off, and says so in a warning alone.
        raise UnreadableError("is truncated: a TIFF's directory lies within the file")
    if image.format == "PNG" and not _png_ends(data):
        raise UnreadableError("is truncated: a PNG ends with IEND")
    if image.format in {"JPEG", "MPO"} and not _jpeg_ends(data):
        raise UnreadableError("is truncated: a JPEG ends with the marker FFD9")
    if image.format == "GIF" and not data.rstrip(b"\0").endswith(b";"):
        raise UnreadableError("is truncated: a GIF ends with a semicolon")
    if image.format == "JPEG2000" and b"\xff\xd9" not in data:
        raise UnreadableError("is truncated: a JPEG 2000 image ends with the marker FFD9")
    if image.format == "WEBP" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise UnreadableError("is truncated: it is shorter than its RIFF header says")


def _png_ends(data: bytes) -> bool:
    """Whether the chunks lead from the beginning to a whole end chunk; what stands behind it is no part of the PNG."""
    place = 8
    while data[place + 4 : place + 8] not in {b"IEND", b""}:
        place += 12 + int.from_bytes(data[place : place + 4])
    return data[place : place + 12] == b"\0\0\0\0IEND\xaeB`\x82"


def _jpeg_ends(data: bytes) -> bool:
    """Whether the end mark follows the beginning of the scan; one before it is a thumbnail's (ITU T.81, annex B)."""
    place = 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] not in {b"\xda", b""}:
        filling = data[place + 1] == 0xFF
        place += 1 if filling else 2 + int.from_bytes(data[place + 2 : place + 4])
    return b"\xff\xd9" in data[place:]


def _grey(image: Image) -> Pixels:
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    if upright.mode in {"I", "F"} or upright.mode.startswith("I;"):
        return _stretch(np.asarray(upright, dtype=np.float64))
    upright = opaque(upright)
    return grey(np.asarray(upright.convert("L" if upright.mode in {"1", "L", "LA"} else "RGB")))


def _stretch(deep: NDArray[np.float64]) -> Pixels:
    low, high = float(deep.min()), float(deep.max())
    return ((deep - low) * (255.0 / max(high - low, 1.0))).astype(np.uint8)
