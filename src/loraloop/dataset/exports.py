"""Datasets to and from files: one flat row per example, with its side and its provenance."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import orjson

from loraloop.core import atomic, messages, tables
from loraloop.errors import DataError
from loraloop.records import Dataset, Example, Provenance, Row

_SAID = ("input", "output", "instruction", "task", "origin")
_PROVENANCE = tuple(field.name for field in fields(Provenance))
_NUMBERS: dict[str, type[int] | type[float]] = {"seed": int, "index": int, "ocr_confidence": float}
_ARROW = {int: "int64", float: "float64", str: "string"}
_SIDES = ("train", "validation")

_WHOLE = ("messages", "tools", "raw", "label", "rejected_message")
"""Columns of a conversation, which no pair of input and output can hold."""

# Column -> what stands in it, in the order of the file.
_PLAIN = {
    name: name for name in ("input", "output", "instruction", "task", "rejected", "split", "origin", *_PROVENANCE)
}
_ALPACA = {"instruction": "instruction", "input": "input", "output": "output"} | _PLAIN
_CSV = {"image_path": "image_path", "ocr_text": "input", "flip_label": "output"} | {
    name: name for name in _PLAIN if name not in ("image_path", "input", "output")
}
_LAYOUTS = {
    ".alpaca.jsonl": _ALPACA,
    ".alpaca.json": _ALPACA,
    ".jsonl": _PLAIN,
    ".json": _PLAIN,
    ".csv": _CSV,
    ".parquet": _PLAIN,
    ".toon": _PLAIN,
}


def layout(path: Path) -> dict[str, str]:
    """The columns of an export to ``path`` in their order, each with the name of the field that it holds.

    Raises:
        ValueError: Nothing is known about such a suffix.
    """
    if not path.suffix:
        return _PLAIN
    for suffix, columns in _LAYOUTS.items():
        if path.name.lower().endswith(suffix):
            return columns
    known = ", ".join(_LAYOUTS)
    raise ValueError(f"{path.name} has an unknown suffix: write {known}, or none for a datasets.save_to_disk folder")


def export(dataset: Dataset, path: Path) -> Path:
    """Write a dataset, the training side first; the file or folder appears whole or not at all.

    The name decides: ``.jsonl``, ``.json``, ``.parquet`` and ``.toon`` begin with the columns ``input`` and ``output``,
    ``.alpaca.jsonl`` and ``.alpaca.json`` with ``instruction``, ``input`` and ``output``, ``.csv`` with ``image_path``,
    ``ocr_text`` (the input) and ``flip_label`` (the output); a name without a suffix is a folder in the layout of
    ``datasets.DatasetDict.save_to_disk``. The task, the rejected answer, the split, the origin and the provenance
    follow in columns of their own; what does not apply is null (an empty cell in CSV). Where an example is more than a
    question and its answer, there are columns for the whole conversation, ``messages`` and ``tools`` in OpenAI's form:
    as JSON values in ``.json`` and ``.jsonl``, as JSON text elsewhere.

    Raises:
        DataError: It cannot be written; an earlier file stays as it was. A folder is never overwritten.
    """
    try:
        columns = layout(path)
    except ValueError as error:
        raise DataError(str(error)) from None
    sides = {side: _examples(getattr(dataset, side)) for side in _SIDES}
    columns = columns | _more(path, itertools.chain(*sides.values()))
    rows = [_flat(example, side, columns, path) for side, examples in sides.items() for example in examples]
    if path.suffix:
        tables.write(path, rows)
    else:
        _save_to_disk(path, rows)
    return path


def save(examples: Iterable[Example], path: Path) -> Path:
    """Write examples that are on no side of a split; :func:`load` reads them back.

    Raises:
        DataError: It cannot be written; an earlier file stays as it was.
    """
    kept = list(examples)
    columns = layout(path) | _more(path, kept)
    tables.write(path, [_flat(example, "", columns, path) for example in kept])
    return path


def load(path: Path) -> tuple[Example, ...]:
    """The examples of an export, in its order; empty cells of optional columns are ``None``.

    Raises:
        DataError: The file or folder is missing, damaged, or lacks a column; names the line.
    """

    def bad(line: int, reason: str) -> None:
        raise DataError(f"{path}:{line}: {reason}")

    rows = tables.read(path, bad) if path.suffix else _load_from_disk(path)
    names = {field: column for column, field in (_CSV if path.suffix.lower() == ".csv" else _PLAIN).items()}
    return tuple(_example(row, names, f"{path}, row {number}") for number, row in enumerate(rows, 1))


def _examples(rows: Sequence[Row]) -> list[Example]:
    """The examples of rows, without those whose conversation goes on in the next row."""
    pairs = zip(rows, [*rows[1:], None], strict=False)
    return [row.example for row, after in pairs if after is None or not _goes_on(row.example, after.example)]


def _goes_on(example: Example, after: Example) -> bool:
    said = example.messages
    return (
        bool(example.origin)
        and len(said) < len(after.messages)
        and example.origin == after.origin
        and after.messages[: len(said)] == said
    )


def _more(path: Path, examples: Iterable[Example]) -> dict[str, str]:
    """The columns that ``examples`` need beside the layout's."""
    return {} if all(example.is_one_turn for example in examples) else {name: name for name in _WHOLE}


def _flat(example: Example, side: str, columns: Mapping[str, str], path: Path) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(example, name) for name in _SAID} | {"split": side}
    values["rejected"] = None if example.rejected is None else example.rejected.text
    values |= {name: getattr(example.provenance, name) for name in _PROVENANCE}
    if "messages" in columns:
        native = path.suffix.lower() in (".json", ".jsonl")
        values |= {
            name: value if native or value is None else orjson.dumps(value).decode()
            for name, value in _conversation(example).items()
        }
    return {column: values[field] for column, field in columns.items()}


def _conversation(example: Example) -> dict[str, Any]:
    """What :data:`_WHOLE` holds of an example; nothing of one that needs none of it."""
    if example.is_one_turn:
        return dict.fromkeys(_WHOLE)
    return {
        "messages": [messages.write(each) for each in example.messages],
        "tools": [dict(tool) for tool in example.tools] or None,
        "raw": example.raw or None,
        "label": example.label,
        "rejected_message": None if example.rejected is None else messages.write(example.rejected),
    }


def _example(row: Mapping[str, Any], names: Mapping[str, str], place: str) -> Example:
    lacking = [names[field] for field in ("input", "output") if not isinstance(row.get(names[field]), str)]
    if lacking:
        raise DataError(f"{place}: no text in the column {' and '.join(lacking)}; it has {', '.join(row)}")

    def value(field: str) -> Any:
        found = row.get(names[field])
        return None if found in ("", None) else _NUMBERS.get(field, str)(found)

    try:
        provenance = {field: value(field) for field in _PROVENANCE}
    except (TypeError, ValueError) as error:
        raise DataError(f"{place}: {error}") from error
    where = Provenance(**provenance | {"source": provenance["source"] or ""})
    said = {field: value(field) for field in ("task", "rejected", "origin")}
    try:
        whole = {name: _parsed(row.get(name)) for name in _WHOLE}
        if whole["messages"] is not None:
            return _from_conversation(whole, said["task"] or "", said["origin"] or "", where)
    except ValueError as error:
        raise DataError(f"{place}: {error}") from error
    return Example.one_turn(
        input=row[names["input"]],
        output=row[names["output"]],
        instruction=value("instruction") or "",
        task=said["task"] or "",
        rejected=said["rejected"],
        origin=said["origin"] or "",
        provenance=where,
    )


def _parsed(value: Any) -> Any:
    """A value of :data:`_WHOLE`, which is JSON text where a format holds no other."""
    if value in ("", None):
        return None
    return orjson.loads(value) if isinstance(value, str) else value


def _from_conversation(whole: Mapping[str, Any], task: str, origin: str, where: Provenance) -> Example:
    worse = whole["rejected_message"]
    return Example(
        messages=messages.read_all(whole["messages"]),
        tools=tuple(whole["tools"] or ()),
        raw=bool(whole["raw"]),
        rejected=None if worse is None else messages.read(worse),
        label=whole["label"],
        task=task,
        origin=origin,
        provenance=where,
    )


def _save_to_disk(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import datasets

    names = list(rows[0]) if rows else list(_PLAIN)
    features = datasets.Features({name: datasets.Value(_ARROW[_NUMBERS.get(name, str)]) for name in names})
    try:
        sides = {
            side: datasets.Dataset.from_list([dict(row) for row in rows if row["split"] == side], features=features)
            for side in _SIDES
        }
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: a value cannot be kept: {error}") from error
    with tables.writing(path), atomic.folder(path) as folder, _without_bars():
        datasets.DatasetDict(sides).save_to_disk(str(folder))


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    import datasets

    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _load_from_disk(path: Path) -> Iterator[Mapping[str, Any]]:
    import datasets

    try:
        sides = datasets.load_from_disk(str(path))
        yield from (row for side in _SIDES for row in sides[side])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a folder that loraloop exported: {error}") from error
