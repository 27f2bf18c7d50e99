"""The files of an adapter's folder: PEFT's two, and loraloop's manifest beside them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loraloop.errors import ModelError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"


def manifest_bytes(facts: Mapping[str, Any]) -> bytes:
    """A manifest as it is written; equal facts give equal bytes."""
    return json.dumps(facts, indent=2, sort_keys=True).encode() + b"\n"


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
