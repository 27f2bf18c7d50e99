"""What a form makes of a row, and the values that forms share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from loraloop.core.tables_json import loads
from loraloop.records import Message

Row = Mapping[str, Any]


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


def label(row: Row) -> bool | None:
    """Whether a person found the last turn good, as ``label`` or ``kto_tag`` says; ``None`` where neither does.

    Raises:
        ValueError: It is neither true nor false.
    """
    value = next((row[name] for name in ("label", "kto_tag") if filled(row.get(name))), None)
    if value is None:
        return None
    said = str(value).strip().lower()
    if said in ("true", "1"):
        return True
    if said in ("false", "0"):
        return False
    raise ValueError(f"label {str(value)[:40]!r} is neither true nor false")


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
