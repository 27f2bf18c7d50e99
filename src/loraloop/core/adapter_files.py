"""The files of an adapter's folder: PEFT's two, and loraloop's manifest beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from loraloop.errors import ModelError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Within the context, an adapter is read from ``folder`` onto a base.

    Raises:
        ModelError: The adapter is damaged, or its shapes do not fit the base.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} is damaged or does not fit the base: {error}") from error
