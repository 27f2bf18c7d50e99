"""Values of logs, which hold JSON as text, times in four units, and names of any length."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from loraloop.core.durations import stamp
from loraloop.core.tables_json import loads

LONGEST_NAME = 200
"""Characters of an id or a name."""
SECONDS = 1e11
"""Times below it are in seconds, those below a thousand of it in milliseconds, and so on."""


def decoded(value: Any) -> Any:
    """A value, or what it is the JSON of where it is the text of an object or a list."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "[", '"'):
        try:
            return loads(value.encode("utf-8", "surrogatepass"))
        except (ValueError, RecursionError):
            return value
    return value


def mapping(value: Any) -> Mapping[str, Any]:
    """The object that a value is, or is the JSON of; empty where it is none."""
    value = decoded(value)
    return value if isinstance(value, Mapping) else {}


def items(value: Any) -> list[Any]:
    """The members of a list, or of the list that a value is the JSON of; empty where it is none."""
    value = decoded(value)
    return value if isinstance(value, list) else []


def first(values: Mapping[str, Any], *names: str) -> Any:
    """The first of the values that says something; ``None`` without one."""
    return next((values[name] for name in names if values.get(name) not in (None, "", [], {})), None)


def name(value: Any) -> str | None:
    """A name or id as every database takes it; a longer or unprintable one as its hash."""
    if value is None or value == "" or isinstance(value, (Mapping, list)):
        return None
    text = str(value).strip()
    if text and len(text) <= LONGEST_NAME and text.isprintable():
        return text
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32] if text else None


def whole(value: Any) -> int | None:
    """A count, which OTLP writes as text; ``None`` for anything else."""
    try:
        found = int(value) if not isinstance(value, bool) else -1
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found < 2**31 else None


def seconds(value: Any) -> float | None:
    """Seconds since 1970 of a number of seconds, milliseconds, microseconds or nanoseconds."""
    try:
        found = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError, OverflowError):
        return None
    while found >= SECONDS:
        found /= 1000
    return found if 0 < found < SECONDS else None


def time(value: Any) -> str | None:
    """A moment as sessions are stamped, of ISO 8601 or a number; ``None`` where it is none."""
    if isinstance(value, str) and not value.strip().replace(".", "", 1).isdigit():
        try:
            return stamp(value.strip())
        except ValueError:
            return None
    found = seconds(value)
    try:
        return None if found is None else stamp(datetime.fromtimestamp(found, UTC).isoformat())
    except (ValueError, OverflowError, OSError):
        return None
