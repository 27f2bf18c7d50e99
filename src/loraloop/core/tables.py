"""Rows of named values to and from files; the suffix decides the format."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import orjson

from loraloop.core import atomic
from loraloop.errors import DataError

Row = dict[str, Any]
Bad = Callable[[int, str], None]
T = TypeVar("T")

# The csv module refuses cells above 128 KiB by default; a page of text or a long log is data, not an attack.
_LONGEST_CELL = 2**31 - 1


def read(path: Path, bad: Bad) -> Iterator[Row]:
    """Read the rows of a ``.jsonl``, ``.json``, ``.csv``, ``.parquet`` or ``.toon`` file.

    CSV cells are text, always; the other formats keep numbers, booleans and nulls.

    Args:
        path: The file; its suffix decides the format.
        bad: Called with a line number (for ``.json`` and a ``.toon`` list: the row's number; both count from 1) and a
            reason for every row that cannot be parsed; reading goes on with the next row.

    Raises:
        DataError: The file is missing, empty or unreadable as a whole, or its suffix is unknown.
    """
    reader = _by_suffix(path, _READERS)
    if not path.exists():
        raise DataError(f"{path}: there is no such file; check the path (relative to {Path.cwd()})")
    if not path.is_file():
        raise DataError(f"{path} is a folder, not a {path.suffix} file")
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty (0 bytes): it holds no rows")
    return _reading(path, reader, bad)


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows so that :func:`read` returns them; the file appears whole or not at all.

    CSV, Parquet and TOON have one set of columns, the union of all keys in order of appearance; a key that a row lacks
    becomes null (an empty cell in CSV).

    Raises:
        DataError: The suffix is unknown, the format cannot hold a value, or the disk is full or not writable; an
            earlier file stays as it was.
    """
    writer = _by_suffix(path, _WRITERS)
    whole = list(rows)
    with writing(path), atomic.write(path) as stream:
        try:
            writer(stream, whole)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"{path}: a value cannot be kept as {path.suffix[1:]}: {error}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the operating system says while ``path`` is written into a :class:`DataError` with a way out."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
        folder = next(parent for parent in path.absolute().parents if parent.exists())
        free = shutil.disk_usage(folder).free // 2**20
        raise DataError(
            f"{path} was not written: no space left on the disk of {folder} ({free} MiB free); free space there or "
            "choose a path on another disk. An earlier file is untouched"
        ) from error


def _by_suffix(path: Path, formats: Mapping[str, T]) -> T:
    try:
        return formats[path.suffix.lower()]
    except KeyError:
        known = ", ".join(formats)
        raise DataError(f"{path}: unknown suffix {path.suffix!r}; the known ones are {known}") from None


def _reading(path: Path, reader: Callable[[Path, Bad], Iterator[Row]], bad: Bad) -> Iterator[Row]:
    try:
        yield from reader(path, bad)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 (byte {error.start}): save it as UTF-8") from error


def _objects(values: Iterable[tuple[int, Any]], bad: Bad) -> Iterator[Row]:
    for number, value in values:
        if isinstance(value, dict):
            yield value
        else:
            bad(number, f"not an object of named values but {type(value).__name__}")


def _read_jsonl(path: Path, bad: Bad) -> Iterator[Row]:
    def values() -> Iterator[tuple[int, Any]]:
        with path.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                bare = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
                try:
                    if bare:
                        yield number, orjson.loads(bare)
                except orjson.JSONDecodeError as error:
                    bad(number, f"not JSON: {error}")

    return _objects(values(), bad)


def _read_json(path: Path, bad: Bad) -> Iterator[Row]:
    try:
        rows = orjson.loads(_text(path))
    except orjson.JSONDecodeError as error:
        raise DataError(f"{path} is not JSON: {error}; if it has one object per line, name it .jsonl") from error
    return _objects(enumerate(_as_list(path, rows), 1), bad)


def _as_list(path: Path, rows: Any) -> list[Any]:
    if isinstance(rows, list):
        return rows
    raise DataError(f"{path} holds one {type(rows).__name__} where a list of objects is needed")


def _read_csv(path: Path, bad: Bad) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_CELL)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
        records = csv.reader(stream, strict=True)
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
                yield dict(zip(columns, cells, strict=True))


def _header(path: Path, cells: Sequence[str]) -> list[str]:
    twice = sorted({name for name in cells if cells.count(name) > 1})
    if twice:
        raise DataError(f"{path}: the header names {', '.join(map(repr, twice))} more than once; rename one of them")
    return list(cells)


def _misfit(cells: Sequence[str], columns: Sequence[str]) -> str:
    if len(cells) != len(columns):
        return f"{len(cells)} cells, the header has {len(columns)}"
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return "not UTF-8: save the file as UTF-8"
    return ""


def _read_parquet(path: Path, bad: Bad) -> Iterator[Row]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                yield from batch.to_pylist()
    except ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


def _read_toon(path: Path, bad: Bad) -> Iterator[Row]:
    from toon_format import ToonDecodeError, loads

    text = _text(path)
    try:
        rows = loads(text)
    except ToonDecodeError as error:
        if not re.match(r"\[\d+[^\n]*\{[^\n]*\}:", text):
            raise DataError(f"{path} is not TOON: {error}") from error
        return _salvage_toon(text, bad)
    return _objects(enumerate(_as_list(path, rows), 1), bad)


def _salvage_toon(text: str, bad: Bad) -> Iterator[Row]:
    """Decode a damaged table line by line under its header, which declares how many rows there should be."""
    from toon_format import ToonDecodeError, loads

    header, *lines = text.split("\n")
    declared = int(re.findall(r"\d+", header)[0])
    found = [(number, line) for number, line in enumerate(lines, 2) if line.strip()]
    if len(found) != declared:
        bad(1, f"the header declares {declared} rows, {len(found)} follow")
    single = re.sub(r"^\[\d+", "[1", header)
    for number, line in found:
        try:
            yield loads(f"{single}\n{line}")[0]
        except ToonDecodeError as error:
            bad(number, f"not a TOON row: {error}")


def _write_jsonl(stream: IO[bytes], rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        stream.write(orjson.dumps(dict(row)) + b"\n")


def _write_json(stream: IO[bytes], rows: Sequence[Mapping[str, Any]]) -> None:
    stream.write(b"[\n" + b",\n".join(orjson.dumps(dict(row)) for row in rows) + b"\n]\n")


def _write_csv(stream: IO[bytes], rows: Sequence[Mapping[str, Any]]) -> None:
    text = io.TextIOWrapper(stream, encoding="utf-8", newline="", write_through=True)
    # RFC 4180's line end: with a bare \n the csv module would leave a \r inside a cell unquoted and lose it.
    writer = csv.writer(text, lineterminator="\r\n")
    columns = _columns(rows)
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(name, row.get(name)) for name in columns])
    text.detach()


def _cell(name: str, value: Any) -> Any:
    if isinstance(value, (Mapping, list, tuple)):
        raise TypeError(f"column {name!r} holds a {type(value).__name__}, a CSV cell is one text or number")
    return value


def _write_parquet(stream: IO[bytes], rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    columns = {name: [row.get(name) for row in rows] for name in _columns(rows)}
    write_table(pyarrow.table(columns), stream)


def _write_toon(stream: IO[bytes], rows: Sequence[Mapping[str, Any]]) -> None:
    from toon_format import dumps

    columns = _columns(rows)
    stream.write(dumps([{name: row.get(name) for name in columns} for row in rows]).encode() + b"\n")


def _columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


_READERS: dict[str, Callable[[Path, Bad], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
    ".toon": _read_toon,
}
_WRITERS: dict[str, Callable[[IO[bytes], Sequence[Mapping[str, Any]]], None]] = {
    ".jsonl": _write_jsonl,
    ".json": _write_json,
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".toon": _write_toon,
}
