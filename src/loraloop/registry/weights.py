"""What can be said about a safetensors file: the tensors that it holds, and whether they are finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loraloop.core import packing
from loraloop.errors import ArtefactError

NUMPY_FLOATS = {"F16", "F32", "F64"}


def names(path: Path) -> list[str]:
    """Names of the tensors.

    Raises:
        ArtefactError: The file is truncated or not safetensors.
    """
    with _opened(path, "numpy") as file:
        return list(file.keys())


def rank(path: Path) -> int:
    """The largest rank of a LoRA's layers, by the shapes of the matrices that read the input.

    Raises:
        ArtefactError: The file is truncated or not safetensors.
    """
    with _opened(path, "numpy") as file:
        return max((_rank(file, name) for name in file.keys() if ".lora_A." in name), default=0)  # noqa: SIM118


def not_finite(path: Path) -> list[str]:
    """Names of the tensors that hold NaN or infinity.

    NumPy looks, which is there at once; torch, which takes seconds to import, only where a float format is none of
    NumPy's.

    Raises:
        ArtefactError: The file is truncated or not safetensors.
    """
    import numpy as np

    with _opened(path, "numpy") as file:
        formats = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 (no mapping)
        floats = {name: each for name, each in formats.items() if each.startswith(("F", "BF"))}
        if NUMPY_FLOATS.issuperset(floats.values()):
            return [name for name in floats if not np.isfinite(file.get_tensor(name)).all()]
    with _opened(path, "pt") as file:
        # Formats of 8 bits have no isfinite of their own; in float64, every value of the others stays what it is.
        return [name for name in floats if not file.get_tensor(name).double().isfinite().all()]


def _rank(file: Any, name: str) -> int:
    if name.endswith(packing.SHAPE):
        return int(file.get_tensor(name)[0])
    return 0 if name.endswith((packing.NF4_CODES, packing.ABSMAX)) else int(file.get_slice(name).get_shape()[0])


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    """Open the file, which checks that its header is sound and that the tensors fill it exactly."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise ArtefactError(
            f"{path} is truncated or not a safetensors file ({error}); train or copy it again"
        ) from error
