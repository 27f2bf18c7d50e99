"""From rows of a table to examples: which column fills which field."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from typing import Any

from pydantic import model_validator

from loraloop.core.part import part
from loraloop.core.suggest import nearest
from loraloop.core.tables_json import loads
from loraloop.errors import DataError
from loraloop.records import Collection, Example, Provenance, Quarantined
from loraloop.source import forms
from loraloop.source.forms import Tally
from loraloop.source.forms.draft import as_text
from loraloop.source.forms.turns import holds
from loraloop.source.siblings import Attempts

_log = logging.getLogger(__name__)

Record = tuple[str, Mapping[str, Any], Provenance]
"""What to call a row in messages, its values, and where it came from."""

_ABSENT = object()


@part
class Columns:
    """Which column fills which field of an example.

    A field left out takes the column of its own name where there is one. Dots reach into nested values and into JSON
    text: ``json.text``, ``answers.0.label``. Rows of conversations are recognised by their columns, unless one of
    ``input``, ``output``, ``instruction`` and ``rejected`` is set. A column ``label`` that fills no field may say which
    answers are good (:mod:`loraloop.source.forms.labels`).

    Attributes:
        messages: The column that holds a list of messages.
        origin: The column whose equal values stay on one side of the split, such as the number of a task.
        reward: The column that says how an attempt at a task ended, 1 or more where it succeeded; one that failed takes
            what a sibling of its origin did where the two part (:mod:`loraloop.source.siblings`).
    """

    input: str | None = None
    output: str | None = None
    instruction: str | None = None
    task: str | None = None
    rejected: str | None = None
    messages: str | None = None
    origin: str | None = None
    reward: str | None = None

    @model_validator(mode="after")
    def _attempts_have_an_origin(self) -> Columns:
        if self.reward and not self.origin:
            raise ValueError(
                f"reward={self.reward} needs origin, the column that tells which rows are attempts at one task: set "
                "source.columns.origin, such as task_id"
            )
        return self

    @property
    def one_turn(self) -> bool:
        """Whether a person says which columns are the question and the answer."""
        return any((self.input, self.output, self.instruction, self.rejected)) and not self.messages

    def of(self, field: str) -> str:
        """The column that fills ``field``."""
        return str(getattr(self, field) or field)

    def judging(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row without a ``label`` that fills a field: it judges no answer then."""
        if "label" not in (getattr(self, field.name) for field in fields(self)):
            return row
        return {name: value for name, value in row.items() if name != "label"}


FIELDS = tuple(field.name for field in fields(Columns) if field.name not in ("messages", "origin", "reward"))
"""Of a question and its answer."""


def collect(
    where: str,
    records: Iterable[Record],
    columns: Columns,
    instruction: str,
    quarantined: list[Quarantined],
    *,
    recognised: bool = True,
) -> Collection:
    """The examples of :func:`read`; says which forms were recognised."""
    found, tally = read(where, records, columns, instruction, quarantined, recognised=recognised)
    if tally.rows or tally.labels:
        _log.info("%s: recognised %s", where, tally.line())
    return found


def read(
    where: str,
    records: Iterable[Record],
    columns: Columns,
    instruction: str,
    quarantined: list[Quarantined],
    *,
    recognised: bool = True,
) -> tuple[Collection, Tally]:
    """Map records to examples: rows of conversations as their form says, others as a question and its answer.

    A row without an answer, or without anything to ask, is quarantined.

    Args:
        where: The file, folder or dataset, for messages.
        records: The rows; reading them may add to ``quarantined``.
        columns: Which column fills which field.
        instruction: Stands in for a missing or empty instruction.
        quarantined: What was set aside while reading; rows set aside here are added.
        recognised: Whether rows of conversations are looked for.

    Raises:
        DataError: A mapped column is in no row, or no row is usable.
    """
    examples: list[Example] = []
    names: dict[str, None] = {}
    found: set[str] = set()
    talk: str | None = None
    tally, labels, attempts = Tally(), forms.Labels(), Attempts()
    for item, row, provenance in records:
        try:
            if recognised and not columns.one_turn and (one := _conversation(row, columns, tally)) is not None:
                task = as_text("task", _task(row, columns))
                made = labels.make(item, *one, instruction, task, provenance)
                examples.append(_placed(item, row, columns, made.example, attempts))
                tally.add(made, one[1])
                continue
            if not names:
                talk = next((name for name, value in row.items() if holds(value)), None)
            names.update(dict.fromkeys(row))
            values = {field: value for field in FIELDS if (value := _reach(row, columns.of(field))) is not _ABSENT}
            found |= values.keys()
            turn = example(values, instruction, provenance)
            turn = labels.judge(item, turn, columns.judging(row), tally, numbers=not columns.one_turn)
            examples.append(_placed(item, row, columns, turn, attempts))
        except (TypeError, ValueError, RecursionError) as error:
            quarantined.append(Quarantined(item, str(error)))
    examples = labels.settle(where, examples, quarantined, tally)
    if attempts.rated:
        examples = attempts.settle(where, examples, quarantined)
    if names and not tally.rows:
        _require(where, columns, instruction, found, list(names), talk)
    if not examples:
        reasons = "; ".join(f"{one.item}: {one.reason}" for one in quarantined[:3])
        raise DataError(f"{where}: no usable row, {len(quarantined)} set aside{reasons and f' ({reasons})'}")
    return Collection(tuple(examples), tuple(quarantined)), tally


def _conversation(
    row: Mapping[str, Any], columns: Columns, tally: Tally
) -> tuple[forms.Form, Mapping[str, Any]] | None:
    """The form of a row, with the row as the form reads it; ``None`` for a row of a question and its answer."""
    if columns.messages:
        if (value := _reach(row, columns.messages)) is _ABSENT:
            return None
        others = {name: each for name, each in row.items() if name not in ("conversations", "conversation")}
        row = {**others, "messages": value}
    form = forms.recognise(row, named=bool(columns.messages))
    if form is None:
        return None
    tally.rows[form.name] += 1
    return form, columns.judging(row)


def _placed(item: str, row: Mapping[str, Any], columns: Columns, made: Example, attempts: Attempts) -> Example:
    """The example with its origin, where a column says it, and its reward noted, where one does."""
    if columns.origin:
        made = replace(made, origin=as_text("origin", _mapped(row, columns, "origin")))
    if columns.reward:
        attempts.add(item, made, _mapped(row, columns, "reward"))
    return made


def _mapped(row: Mapping[str, Any], columns: Columns, field: str) -> Any:
    value = _reach(row, columns.of(field))
    if value is _ABSENT:
        raise ValueError(f"no column {columns.of(field)!r} for source.columns.{field}; the row has {', '.join(row)}")
    return value


def _task(row: Mapping[str, Any], columns: Columns) -> Any:
    value = _reach(row, columns.of("task"))
    return None if value is _ABSENT else value


def _require(
    where: str, columns: Columns, instruction: str, found: set[str], names: list[str], talk: str | None
) -> None:
    """See that each field that is needed has a column.

    Args:
        where: The file, folder or dataset.
        columns: The mapping.
        instruction: Stands in for a missing one.
        found: Fields that have a column.
        names: Of the columns.
        talk: The column whose values look like conversations.

    Raises:
        DataError: One has none.
    """
    needed = ["messages"] if columns.messages else [f for f in FIELDS if getattr(columns, f) or f == "output"]
    if not columns.messages and not instruction and not found & {"input", "instruction"}:
        needed.append("input")
    for field in needed:
        if field not in found:
            name = columns.of(field)
            if talk is not None and not columns.messages and not getattr(columns, field):
                raise DataError(
                    f"{where} has no column {name!r}, and the column {talk!r} holds conversations: set "
                    f"source.columns.messages={talk}"
                )
            raise DataError(
                f"{where} has no column {name!r} for source.columns.{field}{nearest(name, names)}; "
                f"it has {', '.join(names)}: set source.columns.{field} to one of them"
            )


def example(values: Mapping[str, Any], instruction: str, provenance: Provenance) -> Example:
    """The example of values by field.

    Raises:
        ValueError: There is no answer, nothing to ask, or what no file can hold.
    """
    text = {field: as_text(field, value) for field, value in values.items()}
    if not text.get("output", "").strip():
        raise ValueError("the output is empty")
    if not text.get("instruction", "").strip():
        text["instruction"] = instruction
    if not (text["instruction"] + text.get("input", "")).strip():
        raise ValueError("nothing to ask: input and instruction are empty")
    made = Example.one_turn(
        input=text.get("input", ""),
        output=text["output"],
        instruction=text["instruction"],
        task=text.get("task", ""),
        rejected=text.get("rejected") or None,
        origin=provenance.image_sha256 or "",
        provenance=provenance,
    )
    forms.writable(made)
    return made


def _reach(value: Any, path: str) -> Any:
    """The value at a dotted path, or ``_ABSENT``; a name with dots of its own is found first."""
    if isinstance(value, str):
        try:
            value = loads(value.encode())
        except ValueError:
            return _ABSENT
    if isinstance(value, list):
        value = {str(index): item for index, item in enumerate(value)}
    if not isinstance(value, Mapping):
        return _ABSENT
    if path in value:
        return value[path]
    head, dot, rest = path.partition(".")
    return _reach(value[head], rest) if dot and head in value else _ABSENT
