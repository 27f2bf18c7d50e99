"""Files that come inside a request: decoded within limits, and images read by OCR."""

from __future__ import annotations

import base64
import binascii
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.serve.errors import ApiError

if TYPE_CHECKING:
    from loraloop.protocols import Ocr

SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/tiff": ".tiff", "image/webp": ".webp"}


def decode(text: str, limit: int, param: str) -> bytes:
    """The bytes of a base64 text.

    Raises:
        ApiError: It is not base64, or more than ``limit`` bytes.
    """
    if len(text) * 3 // 4 > limit + 3:
        raise ApiError(413, f"{param} is larger than server.max_file_bytes={limit}", param=param, code="file_too_large")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ApiError(400, f"{param} is not base64: {error}", param=param, code="invalid_base64") from None
    if not data:
        raise ApiError(400, f"{param} is empty", param=param, code="invalid_value")
    return data


def read(url: str, ocr: Ocr, limit: int, param: str) -> str:
    """The text of an image; it blocks for as long as OCR takes.

    Args:
        url: ``data:image/png;base64,...``; nothing is fetched from anywhere.
        ocr: The reader.
        limit: Most bytes of the image.
        param: Where the image stands in the request.

    Raises:
        ApiError: Another kind of address, or an image that cannot be read.
    """
    head, comma, text = url.partition(",")
    kind, _, encoding = head.removeprefix("data:").partition(";")
    if not head.startswith("data:") or not comma or encoding != "base64" or kind not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        message = f"{param} must be data:KIND;base64,... with KIND of {kinds}; nothing is fetched from an address"
        raise ApiError(400, message, param=param, code="invalid_image_url")
    data = decode(text, limit, param)
    with tempfile.TemporaryDirectory(prefix="loraloop-") as folder:
        file = Path(folder) / f"image{SUFFIXES[kind]}"
        file.write_bytes(data)
        page = next(iter(ocr.read([file])))
    if page.status != "ok":
        message = f"{param}: the image {page.reason.replace(str(file), 'image')}"
        raise ApiError(400, message, param=param, code="unreadable_image")
    return page.text
