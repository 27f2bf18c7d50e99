"""Rows from JSON: one object a line, one list of objects, or objects that span lines."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

from loraloop.core.encodings import not_utf8, require, text
from loraloop.errors import DataError

BEYOND_64_BITS = re.compile(rb"\d{19}")
"""orjson reads integers of more than 64 bits as floats, which loses their digits."""
NOT_A_NUMBER = object()
SPACE = re.compile(r"\s*")

Bad = Callable[[int, str], None]
Numbered = tuple[int, dict[str, Any]]


def read_lines(path: Path, bad: Bad) -> Iterator[Numbered]:
    """The rows of a ``.jsonl`` file by line; arguments and errors as in :func:`loraloop.core.tables.numbered`."""
    require(path)
    if _spans_lines(path) and (values := _values(path)) is not None:
        return objects(values, bad)
    return objects(_lines(path, bad), bad)


def read_list(path: Path, bad: Bad) -> Iterator[Numbered]:
    """The rows of a ``.json`` list by place; arguments and errors as in :func:`loraloop.core.tables.numbered`."""
    whole = text(path)
    try:
        rows = loads(whole.encode())
    except ValueError as error:
        lines = whole.lstrip().startswith("{") and not _spans_lines(path)
        hint = "; it has one object a line: name it .jsonl" if lines else ""
        raise DataError(f"{path} is not JSON: {error}{hint}") from error
    return objects(enumerate(as_list(path, rows), 1), bad)


def as_list(path: Path, rows: Any) -> list[Any]:
    """``rows``, which must be a list.

    Raises:
        DataError: They are not.
    """
    if isinstance(rows, list):
        return rows
    raise DataError(f"{path} holds one {type(rows).__name__} where a list of objects is needed")


def objects(values: Iterable[tuple[int, Any]], bad: Bad) -> Iterator[Numbered]:
    """Those of the numbered values that are rows; the others are reported."""
    for number, value in values:
        if not isinstance(value, dict):
            bad(number, f"not an object of named values but {type(value).__name__}")
        elif reason := _unread(value):
            bad(number, reason)
        else:
            yield number, value


def loads(data: bytes) -> Any:
    """Parse JSON: integers keep all digits, and NaN and Infinity become ``NOT_A_NUMBER``.

    Raises:
        ValueError: It is not JSON.
    """
    if not BEYOND_64_BITS.search(data):
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            if b"NaN" not in data and b"Infinity" not in data:
                raise
            fault = error
        try:
            return json.loads(data, parse_constant=lambda name: NOT_A_NUMBER)
        except ValueError:
            raise fault from None
    return json.loads(data, parse_constant=lambda name: NOT_A_NUMBER)


def _unread(row: dict[str, Any]) -> str:
    """Why the values of a row cannot be used; empty where they can."""
    try:
        names = [name for name, each in row.items() if _holds_nan(each)]
    except RecursionError:
        return "its values are nested too deeply"
    return f"not JSON: {', '.join(names)} holds NaN or Infinity; write null, or a number" if names else ""


def _holds_nan(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_nan, value.values()))
    if isinstance(value, list):
        return any(map(_holds_nan, value))
    return value is NOT_A_NUMBER


def _lines(path: Path, bad: Bad) -> Iterator[tuple[int, Any]]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            bare = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
            if not bare:
                continue
            try:
                bare.decode()
                yield number, loads(bare)
            except UnicodeDecodeError as error:
                bad(number, not_utf8(error.start))
            except (ValueError, RecursionError) as error:
                bad(number, f"not JSON: {error}")


def _spans_lines(path: Path) -> bool:
    """Whether the first line that is not blank is no object of its own."""
    with path.open("rb") as stream:
        first = next((line.strip() for line in stream if line.strip(b"\xef\xbb\xbf \t\r\n")), b"")
    try:
        return not isinstance(orjson.loads(first.removeprefix(b"\xef\xbb\xbf")), dict)
    except orjson.JSONDecodeError:
        return first.removeprefix(b"\xef\xbb\xbf")[:1] in (b"{", b"[")


def _values(path: Path) -> list[tuple[int, Any]] | None:
    """Every value of a file that is nothing but JSON values, a list's members for the list, with the line it begins on.

    Nothing where a part of it is no JSON: then it is a damaged file of one object a line.
    """
    try:
        whole = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
    decoder = json.JSONDecoder(parse_constant=lambda name: NOT_A_NUMBER)
    found: list[tuple[int, Any]] = []
    place, number = 0, 1
    try:
        while (start := _after_space(whole, place)) < len(whole):
            number += whole.count("\n", place, start)
            value, place = decoder.raw_decode(whole, start)
            found += [(number, each) for each in value] if isinstance(value, list) else [(number, value)]
            number += whole.count("\n", start, place)
    except (ValueError, RecursionError):
        return None
    return found if all(isinstance(value, dict) for _, value in found) else None


def _after_space(whole: str, place: int) -> int:
    found = SPACE.match(whole, place)
    return found.end() if found else place
