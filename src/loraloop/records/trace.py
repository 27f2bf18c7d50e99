"""A conversation that another program logged, and what was said of its answer there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loraloop.records.conversation import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What a judge said of an answer, or elsewhere a person, a judge or a program.

    Attributes:
        source: ``human``, ``judge`` (a model), ``code``, or ``unknown``.
        by: Who it was, as the log names them.
        kind: ``feedback`` on the answer, or an ``expectation``: what it should have been. Of a judge that was asked
            here also a ``preference`` for one of two answers, and the ``cost`` of asking.
        value: As JSON.
        time: ISO 8601, UTC; ``None`` where it is not known.
    """

    id: str
    source: str
    by: str
    kind: str
    name: str
    value: Any
    rationale: str = ""
    time: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """A conversation up to the answer that was logged. ``None`` means: not known. Times in seconds.

    Attributes:
        id: Of the call that gave the answer; the same whenever the log is read.
        place: Where a person finds it.
        messages: The answer is the last one.
        tools: Schemas of the tools that were offered, in OpenAI's form.
        raw: Whether a text was completed, without messages.
        model: That answered, or that was asked for.
        role: The workload that it belongs to.
        group: What its calls have in common, where one conversation may be told by several calls.
        named: Whether ``group`` is a conversation that the log names, rather than one run of a program.
        stars: 1 to 5, as the assessments of people say.
        correction: What it should have answered, as a person says.
    """

    id: str
    place: str
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    raw: bool = False
    time: str | None = None
    model: str | None = None
    client: str | None = None
    conversation: str | None = None
    role: str | None = None
    duration: float | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    group: str = ""
    named: bool = False
    assessments: tuple[Assessment, ...] = ()
    stars: int | None = None
    rated_by: str = ""
    rated: str | None = None
    comment: str = ""
    correction: str = ""
