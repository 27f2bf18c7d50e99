"""What a source of one's own may yield: examples, or plain dictionaries that become examples here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from loraloop.core.suggest import nearest
from loraloop.errors import DataError
from loraloop.protocols import Ocr, Source
from loraloop.records import Collection, Example, Provenance, Quarantined
from loraloop.source import columns, forms

SHAPES = "a source yields dictionaries with input and output, or with messages"


def collect(source: Source, ocr: Ocr | None) -> Collection:
    """The collection of a source, whatever its ``collect`` returns.

    Raises:
        DataError: There is nothing that can be used, or a file of the source cannot be opened.
    """
    name = type(source).__name__
    try:
        return collection(source.collect(ocr), name)
    except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise DataError(f"{name}.collect cannot read its data: {error}") from error


def collection(found: Collection | Iterable[Any], name: str) -> Collection:
    """The collection of a source; what is no example is set aside with its place.

    Args:
        found: What the source's ``collect`` returned: a collection, or examples and dictionaries one by one.
        name: Of the source, for messages and provenance.

    Raises:
        DataError: Nothing was yielded that can be used.
    """
    if isinstance(found, Collection):
        return found
    if isinstance(found, str | Mapping) or not isinstance(found, Iterable):
        raise DataError(f"{name}.collect returned {_kind(found)}: {SHAPES}, or returns a list of them")
    examples: list[Example] = []
    aside: list[Quarantined] = []
    for index, one in enumerate(found):
        try:
            examples.append(one if isinstance(one, Example) else _example(one, Provenance(source=name, index=index)))
        except (TypeError, ValueError, RecursionError) as error:
            aside.append(Quarantined(f"{name} example {index}", str(error)))
    if not examples:
        counted = Counter(each.reason for each in aside).most_common(3)
        reasons = "; ".join(f"{count} x {reason}" for reason, count in counted)
        raise DataError(
            f"{name}.collect yielded no usable example, {len(aside)} set aside{reasons and f' ({reasons})'}"
        )
    return Collection(tuple(examples), tuple(aside))


def _example(row: Any, provenance: Provenance) -> Example:
    if not isinstance(row, Mapping):
        raise TypeError(f"is {_kind(row)}: {SHAPES}")
    if (form := forms.recognise(row)) is not None:
        return forms.make(form, row, "", str(row.get("task") or ""), provenance).example
    for key in row:
        if key not in columns.FIELDS:
            known = [*columns.FIELDS, "messages"]
            raise ValueError(f"has the key {key!r}{nearest(str(key), known)}; an example has {', '.join(known)}")
    return columns.example(row, "", provenance)


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a value of the type {type(value).__name__}"
