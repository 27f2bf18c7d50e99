"""What can be said about a safetensors file without a deep-learning library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from loraloop.errors import ArtefactError

EXPONENT: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000),
    "F32": ("<u4", 0x7F80_0000),
    "BF16": ("<u2", 0x7F80),
    "F16": ("<u2", 0x7C00),
    "F8_E5M2": ("u1", 0x7C),
    "F8_E4M3": ("u1", 0x7F),
}
"""Bits that are all set exactly in NaN and infinity (IEEE 754; E4M3: OCP 8-bit floating point), by dtype."""
CHUNK = 1 << 24


def header(path: Path) -> dict[str, Any]:
    """Name, ``dtype``, ``shape`` and ``data_offsets`` of every tensor.

    Raises:
        ArtefactError: The file is truncated or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass  # opening checks that the header is sound and that the tensors fill the file exactly
    except (SafetensorError, OSError) as error:
        raise ArtefactError(
            f"{path} is truncated or not a safetensors file ({error}); train or copy it again"
        ) from error
    with path.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        tensors: dict[str, Any] = json.loads(stream.read(size))
    tensors.pop("__metadata__", None)
    return tensors


def not_finite(path: Path) -> list[str]:
    """Names of the tensors that hold NaN or infinity."""
    with path.open("rb") as stream:
        start = 8 + int.from_bytes(stream.read(8), "little")
    data = np.memmap(path, np.uint8, "r")
    return [
        name
        for name, tensor in header(path).items()
        if tensor["dtype"] in EXPONENT and _not_finite(data[start:], tensor["data_offsets"], *EXPONENT[tensor["dtype"]])
    ]


def _not_finite(data: np.ndarray, offsets: tuple[int, int], kind: str, mask: int) -> bool:
    for start in range(offsets[0], offsets[1], CHUNK):
        # Copying the slice aligns it: tensors may begin at any byte.
        bits = data[start : min(start + CHUNK, offsets[1])].copy().view(kind)
        if bool(np.any((bits & bits.dtype.type(mask)) == mask)):
            return True
    return False
