"""The rows of logs, each given to the form that knows it, and the conversations that they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from loraloop.core import tables
from loraloop.core.encodings import text
from loraloop.core.tables_json import loads
from loraloop.errors import DataError
from loraloop.records import Example, Message, Provenance, Quarantined, Trace
from loraloop.source import forms
from loraloop.source.forms.repair import mend
from loraloop.source.traces.judged import judged
from loraloop.source.traces.mlflow import Mlflow
from loraloop.source.traces.rebuild import joined
from loraloop.source.traces.requests import Requests
from loraloop.source.traces.spans import Spans

Row = tuple[str, Mapping[str, Any]]
"""Where a person finds a row, and its values."""


class Form(Protocol):
    """A form of logs."""

    calls: list[Trace]

    def knows(self, row: Mapping[str, Any]) -> str | None:
        """What a row is called; ``None`` for one of another form."""
        ...

    def add(self, place: str, row: Mapping[str, Any]) -> None:
        """Read a row; ``ValueError`` says why it cannot be used."""
        ...

    def end(self) -> list[Quarantined]:
        """What could not be put together, after the last row."""
        ...


@dataclass
class Found:
    """Conversations, and what became of the rest.

    Attributes:
        rows: By what they are called.
        counts: ``calls``, ``twice``, ``joined``, and what else is told of them.
    """

    traces: list[Trace] = field(default_factory=list)
    aside: list[Quarantined] = field(default_factory=list)
    rows: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def line(self) -> str:
        """The forms with their rows, and the conversations, in one line."""
        rows = ", ".join(f"{name} in {count:,} rows" for name, count in self.rows.most_common())
        told = {"joined": "calls that are parts of longer conversations", "twice": "calls that came twice"}
        more = [
            f"{told.get(what, what)}: {count:,}" for what, count in self.counts.items() if count and what != "calls"
        ]
        calls = f"calls: {self.counts['calls']:,}; conversations: {len(self.traces):,}"
        return "; ".join([f"{rows}: {calls}", *more])


def conversations(rows: Iterable[Row], aside: list[Quarantined]) -> Found:
    """The conversations of rows; what cannot be used is set aside with its reason.

    Args:
        rows: Reading them may add to ``aside``.
        aside: What was set aside.
    """
    spans = Spans()
    every: tuple[Form, ...] = (Requests(), spans, Mlflow())
    found = Found(aside=aside)
    for place, row in rows:
        named = next(((form, name) for form in every if (name := form.knows(row))), None)
        try:
            if named is None:
                raise ValueError(
                    f"no form of logs that is known: it has {', '.join(map(str, list(row)[:5])) or 'nothing'}"
                )
            named[0].add(place, row)
            found.rows[named[1]] += 1
        except (TypeError, ValueError, KeyError, RecursionError) as error:
            aside.append(Quarantined(place, _told(error)))
    calls: list[Trace] = []
    for form in every:
        aside += form.end()
        calls += form.calls
    found.counts["calls"] = len(calls)
    found.counts += spans.counts
    found.traces = list(_usable(judged(joined(calls, found.counts)), aside))
    return found


def _told(error: Exception) -> str:
    return f"{error.args[0]} is missing" if isinstance(error, KeyError) else str(error) or "nested too deeply"


def _usable(traces: Iterable[Trace], aside: list[Quarantined]) -> Iterator[Trace]:
    """The traces with their turns in order; one whose turns do not fit together is set aside."""
    for trace in traces:
        try:
            if not any(message.role != "system" for message in trace.messages[:-1]):
                raise ValueError("nothing was asked before the answer")
            repaired: Counter[str] = Counter()
            said = trace.messages if trace.raw else mend(trace.messages, repaired, last_is_judged=True)
            if len(said) < 2 or not (said[-1].text.strip() or said[-1].tool_calls):
                raise ValueError("the answer is empty")
            made = replace(trace, messages=said)
            forms.writable(example(made))
            yield made
        except (TypeError, ValueError, RecursionError) as error:
            aside.append(Quarantined(trace.place, str(error)))


def example(trace: Trace) -> Example:
    """A trace as an example.

    A correction stands in the place of the answer, which then is the rejected one; else stars say whether it is good.
    """
    *past, answer = trace.messages
    corrected = bool(trace.correction)
    return Example(
        messages=(*past, Message("assistant", (trace.correction,)) if corrected else answer),
        tools=trace.tools,
        raw=trace.raw,
        rejected=answer if corrected else None,
        label=None if corrected or trace.stars is None else trace.stars >= 4,
        task=trace.role or "",
        provenance=Provenance(source="traces", session_id=trace.id),
    )


def files(paths: Iterable[Path], aside: list[Quarantined]) -> Iterator[Row]:
    """The rows of files: JSON lines, a list, or one object; what cannot be read is set aside."""
    for path in paths:

        def bad(line: int, reason: str, path: Path = path) -> None:
            aside.append(Quarantined(f"{path}:{line}", reason))

        try:
            if path.suffix.lower() == ".json" and (one := _one(path)) is not None:
                yield str(path), one
            else:
                yield from ((f"{path}:{number}", row) for number, row in tables.numbered(path, bad))
        except DataError as error:
            aside.append(Quarantined(str(path), str(error)))


def _one(path: Path) -> Mapping[str, Any] | None:
    """The one object that a file is; ``None`` for a list, or for what is no JSON."""
    try:
        found = loads(text(path).encode())
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, Mapping) else None
