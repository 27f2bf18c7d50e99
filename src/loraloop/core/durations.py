"""Spans of time as people write them, ``90s``, ``30m``, ``4h``, ``7d``, and moments as records do, in ISO 8601."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import AfterValidator

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
PATTERN = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhd])")


def span(text: str) -> timedelta:
    """The span that ``text`` writes.

    Raises:
        ValueError: It is none, or zero.
    """
    match = PATTERN.fullmatch(text)
    found = timedelta(**{UNITS[match[2]]: float(match[1])}) if match else timedelta(0)
    if not found:
        raise ValueError("write a number above 0 and its unit, s, m, h or d, such as 30m or 4h")
    return found


def moment(text: str) -> datetime:
    """The moment that an ISO 8601 ``text`` names; without a zone it is UTC's.

    Raises:
        ValueError: It names none.
    """
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def stamp(text: str) -> str:
    """The moment that ``text`` names as sessions are stamped, in UTC to the millisecond: in the order of their texts.

    Raises:
        ValueError: It names none.
    """
    try:
        return moment(text).astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: write it as ISO 8601 does, 2026-03-02T11:00:00Z") from None


def _is_span(text: str) -> str:
    span(text)
    return text


Span = Annotated[str, AfterValidator(_is_span)]
"""A key's type: a text that :func:`span` reads."""
