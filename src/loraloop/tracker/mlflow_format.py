"""loraloop's values as MLflow takes them: names, lengths, tables."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
KEY_CHARACTERS = 250
DIGEST_CHARACTERS = 36


@functools.lru_cache(maxsize=4096)
def legal(key: str) -> str:
    """``key`` with what MLflow refuses in a name replaced by ``_``, and without what a path resolves."""
    allowed = re.sub(r"[^\w\-. :/]", "_", key)[:KEY_CHARACTERS]
    return "/".join(part for part in allowed.split("/") if part.strip(".")).lstrip(".") or "_"


def cut(text: str, limit: int) -> str:
    """``text`` in at most ``limit`` characters, an ellipsis where something was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def digest(fingerprint: str, context: str) -> str:
    """A dataset's digest: the head of its fingerprint, and the context.

    Without the context MLflow takes both sides of a split for one dataset and drops the second.
    """
    return f"{fingerprint[: DIGEST_CHARACTERS - 1 - len(context)]}-{context}"


def split_orient(rows: Sequence[Mapping[str, Any]]) -> str:
    """JSON of a table as MLflow's table view reads it: column names and rows; what is not finite or missing is null."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    data = [[_plain(row.get(name)) for name in columns] for row in rows]
    return json.dumps({"columns": columns, "data": data}, allow_nan=False, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):  # a scalar of NumPy or torch
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int) else str(value)
