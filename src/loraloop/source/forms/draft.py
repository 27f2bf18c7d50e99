"""What a form makes of a row, and the values that forms share."""

from __future__ import annotations

import datetime
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import orjson

from loraloop.core.tables_json import loads
from loraloop.records import Message

Row = Mapping[str, Any]
_BOOLEANS = dict.fromkeys(("true", "1", "1.0", "good"), True) | dict.fromkeys(("false", "0", "0.0", "bad"), False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A conversation as its row says it; the fields are those of an example.

    Attributes:
        repaired: What was put right while reading, with how often.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    rejected: Message | None = None
    label: bool | None = None
    raw: bool = False
    repaired: Counter[str] = field(default_factory=Counter)


def filled(value: Any) -> bool:
    """Whether a cell holds something: no null, no NaN of pandas, no blank text and no empty list."""
    if isinstance(value, str):
        return bool(value.strip())
    return value is not None and value == value and value != [] and value != {}


def parsed(value: Any, name: str) -> Any:
    """A value, or what it is the JSON of where it is text.

    Raises:
        ValueError: It is a text that is no JSON.
    """
    if not isinstance(value, str):
        return value
    try:
        return loads(value.encode("utf-8", "surrogatepass"))
    except ValueError as error:
        raise ValueError(f"{name} is no JSON: {error}") from error


def text(row: Row, name: str) -> str:
    """The text in a column, empty where there is none.

    Raises:
        ValueError: The column holds something else.
    """
    value = row.get(name)
    if not filled(value):
        return ""
    if not isinstance(value, str):
        raise ValueError(f"{name} is no text but {type(value).__name__}")
    return value


class OddLabelError(ValueError):
    """The column ``label`` says neither good nor bad.

    Attributes:
        value: What it says.
    """

    def __init__(self, value: Any) -> None:
        self.value = str(value).strip()
        super().__init__(f"label {self.value[:40]!r} is neither true nor false")


def label_column(row: Row) -> str | None:
    """The column that says whether the last turn is good; ``None`` where none does."""
    return next((name for name in ("label", "kto_tag") if filled(row.get(name))), None)


def label(row: Row) -> bool | None:
    """Whether a person found the last turn good, as ``label`` or ``kto_tag`` says; ``None`` where neither does.

    Raises:
        OddLabelError: ``label`` is neither true nor false.
        ValueError: ``kto_tag`` is neither.
    """
    name = label_column(row)
    if name is None:
        return None
    said = as_bool(row[name])
    if said is None and name == "label":
        raise OddLabelError(row[name])
    if said is None:
        raise ValueError(f"{name} {str(row[name])[:40]!r} is neither true nor false")
    return said


def as_bool(value: Any) -> bool | None:
    """What a boolean, a number or a text says, as true, 1 and good do; ``None`` where it says neither."""
    return _BOOLEANS.get(str(value).strip().lower())


def as_text(name: str, value: Any) -> str:
    """Text as it is, numbers with all digits, times in ISO 8601, a line for each of a list of texts, else JSON.

    Raises:
        TypeError: The value of ``name`` is something that JSON cannot hold.
    """
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN is how pandas writes a missing value
        return ""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "\n".join(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Decimal) or (isinstance(value, int) and not isinstance(value, bool)):
        return str(value)
    try:
        return orjson.dumps(value, default=_plain).decode()
    except TypeError as error:
        if "64-bit" in str(error):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_plain)
        raise TypeError(f"the {name} is not text: {error}") from error


def _plain(value: Any) -> Any:
    """What JSON holds for a value that it has no form for."""
    if isinstance(value, Decimal | datetime.timedelta):
        return str(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"a value of the type {type(value).__name__}")


def no_media(row: Row) -> None:
    """Refuse a row that holds images, videos or sounds.

    Raises:
        ValueError: It does; names the column.
    """
    for name in ("image", "images", "videos", "audios"):
        if filled(row.get(name)):
            raise ValueError(f"{name} belong to the conversation, and a text model reads text only")


def asked(system: str, *parts: str) -> tuple[Message, ...]:
    """A question after what the system says, each where it says something."""
    said = tuple(part for part in parts if part)
    before = (Message("system", (system,)),) if system else ()
    return (*before, Message("user", said))
