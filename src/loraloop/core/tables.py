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

from loraloop.core import atomic, tables_csv, tables_json
from loraloop.core.encodings import text
from loraloop.errors import DataError

Row = dict[str, Any]
Numbered = tuple[int, Row]
"""A row behind the number that a person finds it by: its line in a text file, its place elsewhere, from 1."""
Bad = Callable[[int, str], None]
T = TypeVar("T")


def read(path: Path, bad: Bad) -> Iterator[Row]:
    """The rows of :func:`numbered`, without their numbers."""
    return (row for _, row in numbered(path, bad))


def numbered(path: Path, bad: Bad) -> Iterator[Numbered]:
    """Read the rows of a ``.jsonl``, ``.json``, ``.csv``, ``.parquet`` or ``.toon`` file.

    CSV cells are text, always; the other formats keep numbers, booleans and nulls. A CSV may also be separated by
    semicolons, tabs or bars, and may begin with Excel's ``sep=`` line. A ``.jsonl`` may also hold one list of objects,
    or objects over several lines each.

    Args:
        path: The file; its suffix decides the format.
        bad: Called with a line number (for ``.json``, ``.parquet`` and a ``.toon`` list: the row's number) and a reason
            for every row that cannot be parsed; reading goes on with the next row.

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


def _reading(path: Path, reader: Callable[[Path, Bad], Iterator[Numbered]], bad: Bad) -> Iterator[Numbered]:
    try:
        yield from reader(path, bad)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _read_parquet(path: Path, bad: Bad) -> Iterator[Numbered]:
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    number = 0
    try:
        with ParquetFile(path) as file:
            for batch in file.iter_batches():
                for number, row in enumerate(shortest(batch), number + 1):  # noqa: B020 - it goes on counting
                    yield number, row
    except ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


def shortest(batch: Any) -> list[Row]:
    """The rows of an Arrow table or batch; a float of 32 or 16 bits becomes the shortest decimal that stands for it."""
    import pyarrow

    rows: list[Row] = batch.to_pylist()
    for field in batch.schema:
        if pyarrow.types.is_float32(field.type) or pyarrow.types.is_float16(field.type):
            for row in rows:
                if row[field.name] is not None:
                    row[field.name] = float(str(field.type.to_pandas_dtype()(row[field.name])))
    return rows


def _read_toon(path: Path, bad: Bad) -> Iterator[Numbered]:
    from toon_format import ToonDecodeError, loads

    whole = text(path)
    try:
        rows = loads(whole)
    except ToonDecodeError as error:
        if not re.match(r"\[\d+[^\n]*\{[^\n]*\}:", whole):
            raise DataError(f"{path} is not TOON: {error}") from error
        return _salvage_toon(whole, bad)
    return tables_json.objects(enumerate(tables_json.as_list(path, rows), 1), bad)


def _salvage_toon(text: str, bad: Bad) -> Iterator[Numbered]:
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
            yield number, loads(f"{single}\n{line}")[0]
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


_READERS: dict[str, Callable[[Path, Bad], Iterator[Numbered]]] = {
    ".jsonl": tables_json.read_lines,
    ".json": tables_json.read_list,
    ".csv": tables_csv.read,
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
