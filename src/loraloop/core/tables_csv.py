"""Rows from CSV, whatever separates its cells."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from loraloop.core.encodings import not_utf8, require
from loraloop.errors import DataError

LONGEST_CELL = 2**31 - 1
"""The csv module refuses cells above 128 KiB by default; a page of text or a long log is data, not an attack."""
SEPARATORS = ";\t|"
"""Tried where a comma does not separate the header."""

Bad = Callable[[int, str], None]


def read(path: Path, bad: Bad) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows by line; arguments and errors are those of :func:`loraloop.core.tables.numbered`."""
    require(path)
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        separator, told = _separator(path)
        records = csv.reader(stream, strict=True, delimiter=separator)
        if told:
            next(records)
        columns: list[str] | None = None
        while True:
            line = records.line_num + 1
            try:
                cells = next(records, None)
            except csv.Error as error:
                bad(line, f"not CSV: {error} (the row begins here and ends on line {records.line_num})")
                continue
            if cells is None:
                return
            if not cells:
                continue
            if columns is None:
                columns = _header(path, cells)
            elif reason := _misfit(cells, columns):
                bad(line, reason)
            else:
                yield line, dict(zip(columns, cells, strict=False))


def _separator(path: Path) -> tuple[str, bool]:
    """What separates the cells, and whether a first line ``sep=X`` tells it, as Excel writes it."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        lines = [stream.readline().rstrip("\r\n") for _ in range(2)]
    if lines[0].lower().startswith("sep=") and len(lines[0]) == len("sep=") + 1:
        return lines[0][-1], True
    if "," in lines[0] or '"' in lines[0]:
        return ",", False
    fitting = [each for each in SEPARATORS if 0 < lines[0].count(each) <= lines[1].count(each)]
    return (fitting[0] if len(fitting) == 1 else ","), False


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    """The names of the columns; empty cells at the end, as spreadsheets leave them, name none."""
    names = list(cells)
    while len(names) > 1 and not names[-1].strip():
        names.pop()
    if any("\udc80" <= letter <= "\udcff" for name in names for letter in name):
        raise DataError(f"{path}: the header is {not_utf8(0).replace(' (byte 0)', '')}")
    stripped = [name.strip() for name in names]
    names = stripped if len(set(stripped)) == len(names) else names
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {', '.join(map(repr, twice))} more than once; rename one of them")
    return names


def _misfit(cells: Sequence[str], columns: Sequence[str]) -> str:
    beyond = cells[len(columns) :]
    if len(cells) < len(columns) or any(cell.strip() for cell in beyond):
        return f"{len(cells)} cells, the header has {len(columns)}"
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return not_utf8(0).replace(" (byte 0)", "")
    return ""
