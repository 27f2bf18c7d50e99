"""What can be said about a safetensors file: the tensors that it holds, and whether they are finite."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loraloop.errors import ArtefactError


def names(path: Path) -> list[str]:
    """Names of the tensors.

    Raises:
        ArtefactError: The file is truncated or not safetensors.
    """
    with _opened(path, "numpy") as file:
        return list(file.keys())


def not_finite(path: Path) -> list[str]:
    """Names of the tensors that hold NaN or infinity; torch knows every float format, numpy does not.

    Raises:
        ArtefactError: The file is truncated or not safetensors.
    """
    with _opened(path, "pt") as file:
        return [name for name in file.keys() if not _is_finite(file.get_tensor(name))]  # noqa: SIM118 (no mapping)


def _is_finite(tensor: Any) -> bool:
    # Formats of 8 bits have no isfinite of their own; in float64, every value of the others stays what it is.
    return not tensor.is_floating_point() or bool(tensor.double().isfinite().all())


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
