"""OTLP/JSON: the spans of ``resourceSpans``, and the calls of models and tools among them."""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from loraloop.records import Quarantined, Trace
from loraloop.source.traces import answers, genai, rebuild
from loraloop.source.traces.rebuild import ToolRun
from loraloop.source.traces.values import first, items, mapping, name, seconds, time, whole

DEEPEST = 50
ORPHAN = "a span of its trace names a parent that is not there, and without it the conversation cannot be put together"


@dataclass(frozen=True, slots=True)
class Span:
    """One span.

    Attributes:
        start: Seconds since 1970; 0 where it is not known.
        fault: What went wrong in it; empty if nothing did.
    """

    place: str
    trace: str
    id: str
    parent: str
    start: float
    end: float
    attributes: Mapping[str, Any]
    events: tuple[genai.Event, ...]
    fault: str = ""

    @property
    def group(self) -> tuple[str, bool]:
        """The conversation that it names, else its trace; and whether it names one."""
        named = name(
            first(
                self.attributes, "gen_ai.conversation.id", "session.id", "traceloop.association.properties.session_id"
            )
        )
        return (named, True) if named else (self.trace, False)


class Spans:
    """Rows that are exports of spans; a trace may go over several rows."""

    def __init__(self) -> None:
        self.calls: list[Trace] = []
        self.counts: Counter[str] = Counter()
        self._spans: dict[tuple[str, str], Span] = {}

    def knows(self, row: Mapping[str, Any]) -> str | None:
        """What a row is called; ``None`` for one of another form."""
        return None if row.keys().isdisjoint({"resourceSpans", "resource_spans"}) else "OTLP spans"

    def add(self, place: str, row: Mapping[str, Any]) -> None:
        """Read a row.

        Raises:
            ValueError: It holds no spans.
        """
        found = list(_spans(place, row))
        if not found:
            raise ValueError("the export holds no span")
        for span in found:
            if (span.trace, span.id) in self._spans:
                self.counts["spans that came twice"] += 1
            self._spans.setdefault((span.trace, span.id), span)

    def end(self) -> list[Quarantined]:
        """Make the calls of the spans, each with its whole past; those that cannot be used are set aside."""
        spans = sorted(self._spans.values(), key=lambda span: span.start)
        orphans = {each.trace for each in spans if each.parent and (each.trace, each.parent) not in self._spans}
        if orphans:
            self.counts["traces with a span whose parent is missing"] = len(orphans)
        aside: list[Quarantined] = []
        groups: dict[str, tuple[list[Trace], list[ToolRun]]] = defaultdict(lambda: ([], []))
        broken = {span.group[0] for span in spans if span.trace in orphans}
        used = list(self._kinds(spans))
        talks = defaultdict[str, set[str]](set)
        for span, kind in used:
            if kind == "chat":
                talks[span.trace].add(span.group[0])
        for span, kind in used:
            if kind == "tool":
                run = _tool(span)
                for group in _conversations(span, run, talks[span.trace]):
                    groups[group][1].append(run)
                continue
            try:
                groups[span.group[0]][0].append(call(span))
            except (TypeError, ValueError, RecursionError) as error:
                aside.append(Quarantined(span.place, str(error)))
        for group, (calls, tools) in groups.items():
            for made, changed in rebuild.rebuilt(calls, tools):
                if changed and group in broken:
                    aside.append(Quarantined(made.place, ORPHAN))
                else:
                    self.calls.append(made)
        return aside

    def _kinds(self, spans: list[Span]) -> Iterator[tuple[Span, str]]:
        """The spans of models and tools; one around calls, such as an agent's, only where it holds no call."""
        kinds = [(span, genai.kind(span.attributes)) for span in spans]
        with_calls = {span.trace for span, kind in kinds if kind == "chat"}
        for span, kind in kinds:
            if kind == "tool" or kind == "chat":
                yield span, kind
            elif kind == "around" and span.trace not in with_calls and genai.speaks(span.attributes):
                yield span, "chat"
            else:
                self.counts["other spans"] += 1


def _spans(place: str, row: Mapping[str, Any]) -> Iterator[Span]:
    for resource in items(first(row, "resourceSpans", "resource_spans")):
        resource = mapping(resource)
        scopes = first(resource, "scopeSpans", "scope_spans", "instrumentationLibrarySpans")
        shared = attributes(mapping(resource.get("resource")).get("attributes"))
        for scope in items(scopes):
            for span in items(mapping(scope).get("spans")):
                if not isinstance(span, Mapping):
                    raise ValueError("a span is no object")
                yield _span(place, span, shared)


def _span(place: str, span: Mapping[str, Any], shared: Mapping[str, Any]) -> Span:
    trace, own = (hexadecimal(first(span, *names)) for names in (("traceId", "trace_id"), ("spanId", "span_id")))
    if not trace or not own:
        raise ValueError("a span has no traceId or no spanId")
    status = mapping(span.get("status"))
    failed = str(status.get("code", "")) in ("2", "STATUS_CODE_ERROR")
    return Span(
        place=f"{place} span {own}",
        trace=trace,
        id=own,
        parent=hexadecimal(first(span, "parentSpanId", "parent_span_id")),
        start=seconds(first(span, "startTimeUnixNano", "start_time_unix_nano")) or 0.0,
        end=seconds(first(span, "endTimeUnixNano", "end_time_unix_nano")) or 0.0,
        attributes={**shared, **attributes(span.get("attributes"))},
        events=tuple(
            (str(mapping(event).get("name", "")), attributes(mapping(event).get("attributes")))
            for event in items(span.get("events"))
        ),
        fault=f"the span ended with an error: {str(status.get('message') or 'without a message')[:100]}"
        if failed
        else "",
    )


def attributes(value: Any) -> dict[str, Any]:
    """Attributes of a list of keys with values, or as they are where they are an object already.

    Raises:
        ValueError: They are nested too deeply.
    """
    if isinstance(value, Mapping):
        return {str(key): each for key, each in value.items()}
    found = (mapping(each) for each in items(value))
    return {str(each["key"]): _value(each.get("value"), 0) for each in found if "key" in each}


def _value(value: Any, depth: int) -> Any:
    if depth > DEEPEST:
        raise ValueError("an attribute is nested too deeply")
    if not isinstance(value, Mapping):
        return value
    kind, held = next(iter(value.items()), ("", None))
    match kind:
        case "intValue" | "int_value":
            return whole(held)
        case "arrayValue" | "array_value":
            return [_value(each, depth + 1) for each in items(mapping(held).get("values"))]
        case "kvlistValue" | "kvlist_value":
            pairs = (mapping(each) for each in items(mapping(held).get("values")))
            return {str(each["key"]): _value(each.get("value"), depth + 1) for each in pairs if "key" in each}
        case _:
            return held


def hexadecimal(value: Any) -> str:
    """An id in hexadecimal digits, also of its Base64; empty for none, or for nothing but zeros."""
    text = str(value or "").strip()
    if text.endswith("="):
        with contextlib.suppress(ValueError, binascii.Error):
            text = base64.b64decode(text, validate=True).hex()
    return (name(text) or "").lower() if text.strip("0") else ""


def call(span: Span) -> Trace:
    """The call of a model that a span tells.

    Raises:
        ValueError: It has no answer, a message is none, or it ended with an error.
    """
    if span.fault:
        raise ValueError(span.fault)
    asked, answered, tools = genai.said(span.attributes, span.events)
    if [message.role for message in answered[:1]] != ["assistant"]:
        raise ValueError("the span says no answer of the assistant: content was not recorded, or it is elsewhere")
    about, (group, named) = span.attributes, span.group
    own = _served(about)
    return Trace(
        id=own or f"{span.trace}.{span.id}",
        place=span.place,
        messages=(*asked, answered[0]),
        tools=answers.offered({"tools": tools}),
        time=time(span.start),
        model=name(first(about, "gen_ai.response.model", "gen_ai.request.model", "llm.model_name")),
        client=name(first(about, "enduser.id", "user.id")),
        conversation=group if named else None,
        duration=span.end - span.start if 0 < span.start <= span.end else None,
        prompt_tokens=whole(
            first(about, "gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt")
        ),
        completion_tokens=whole(
            first(about, "gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion")
        ),
        group=group,
        named=named and own is None,
    )


def _served(about: Mapping[str, Any]) -> str | None:
    """The session of an answer that loraloop served, which the store may know; its span tells the whole past."""
    return name(about.get("gen_ai.response.id")) if about.get("gen_ai.provider.name") == "loraloop" else None


def _conversations(span: Span, run: ToolRun, talks: set[str]) -> list[str]:
    """The conversations in which a tool may have been called: the one that its span names, else those of its trace.

    Where the trace has several, the id of the call tells them apart, and a run without one could be of any.
    """
    group, named = span.group
    if named or not talks:
        return [group]
    return sorted(talks) if run.call or len(talks) == 1 else []


def _tool(span: Span) -> ToolRun:
    about = span.attributes
    called = first(about, "gen_ai.tool.name", "tool.name", "traceloop.entity.name")
    result = first(about, "gen_ai.tool.call.result", "output.value", "traceloop.entity.output")
    return ToolRun(str(called or ""), str(about.get("gen_ai.tool.call.id") or ""), span.fault or genai.text(result))
