"""MLflow's traces, of a server, a database or an export, with the assessments of people, judges and code.

Fields: https://mlflow.org/docs/latest/genai/tracing/concepts/trace/ and .../concepts/feedback/ (MLflow 3).
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from loraloop.core import mlflow_database
from loraloop.core.passwords import mask
from loraloop.errors import DataError
from loraloop.records import Assessment, Message, Quarantined, Trace
from loraloop.source.traces import answers, genai, rebuild
from loraloop.source.traces.rebuild import ToolRun
from loraloop.source.traces.spans import attributes
from loraloop.source.traces.values import decoded, first, items, mapping, name, seconds, time, whole

PAGE = 200
SQLITE = "sqlite:///"
MODELS = frozenset({"CHAT_MODEL", "LLM"})
SOURCES = {"HUMAN": "human", "LLM_JUDGE": "judge", "AI_JUDGE": "judge", "CODE": "code"}
Json = Mapping[str, Any]


class Mlflow:
    """Rows that are traces: ``info`` and ``data``, as ``Trace.to_dict`` writes them."""

    def __init__(self) -> None:
        self.calls: list[Trace] = []
        self._seen: set[str] = set()

    def knows(self, row: Json) -> str | None:
        """What a row is called; ``None`` for one of another form."""
        return "MLflow traces" if {"info", "data"} <= row.keys() and "spans" in mapping(row["data"]) else None

    def add(self, place: str, row: Json) -> None:
        """Read a trace: its calls of models, and on the last one what was said of the trace.

        Raises:
            ValueError: It holds no call of a model.
        """
        info, spans = mapping(row["info"]), [mapping(each) for each in items(mapping(row["data"]).get("spans"))]
        trace = name(first(info, "trace_id", "request_id"))
        if trace is None:
            raise ValueError("the trace has no trace_id")
        if trace in self._seen:
            raise ValueError(f"the trace {trace} is there twice")
        spans.sort(key=lambda span: seconds(span.get("start_time_unix_nano")) or 0.0)
        about = {key: decoded(value) for key, value in mapping(info.get("trace_metadata")).items()}
        found = _calls(f"{place} trace {trace}".strip(), spans)
        session, said = name(about.get("mlflow.trace.session")), tuple(_assessments(info))
        last = max(found, key=lambda call: len(call.messages))
        self._seen.add(trace)
        for call in found:
            is_last = call is last
            self.calls.append(
                replace(
                    call,
                    id=name(info.get("client_request_id")) or trace if is_last else f"{trace}.{call.id}",
                    time=call.time or time(info.get("request_time")),
                    client=name(about.get("mlflow.trace.user")),
                    conversation=session,
                    group=session or trace,
                    named=session is not None,
                    assessments=said if is_last else (),
                )
            )

    def end(self) -> list[Quarantined]:
        """Put together the conversations of sessions whose traces tell the last question alone."""
        groups: dict[str, list[Trace]] = defaultdict(list)
        for call in sorted(self.calls, key=lambda each: each.time or ""):
            groups[call.group].append(call)
        self.calls = [made for calls in groups.values() for made, _ in rebuild.rebuilt(calls, ())]
        return []


def _calls(place: str, spans: list[Json]) -> list[Trace]:
    """The calls of models of a trace, in their order, else the one that its first span tells.

    Raises:
        ValueError: There is none.
    """
    calls: list[Trace] = []
    tools: list[ToolRun] = []
    faults = []
    for span in spans:
        about = {key: decoded(value) for key, value in attributes(span.get("attributes")).items()}
        kind = about.get("mlflow.spanType")
        try:
            if kind == "TOOL":
                tools.append(ToolRun(str(span.get("name", "")), "", genai.text(about.get("mlflow.spanOutputs"))))
            elif kind in MODELS or (kind in (None, "UNKNOWN") and genai.kind(about) == "chat"):
                calls.append(_call(place, span, about))
        except (TypeError, ValueError, RecursionError) as error:
            faults.append(str(error))
    made = [call for call, _ in rebuild.rebuilt(calls, tools)]
    if made:
        return made
    if faults:
        raise ValueError(faults[-1])
    root = next((span for span in spans if not span.get("parent_span_id")), None)
    if root is None:
        raise ValueError(
            "the trace has no span without a parent: half of it is missing" if spans else "the trace has no spans"
        )
    return [_call(place, root, {key: decoded(value) for key, value in attributes(root.get("attributes")).items()})]


def _call(place: str, span: Json, about: Json) -> Trace:
    """The call that a span tells.

    Raises:
        ValueError: It has no question or no answer.
    """
    status = mapping(span.get("status"))
    if status.get("code") == "STATUS_CODE_ERROR":
        raise ValueError(f"the call ended with an error: {str(status.get('message') or 'without a message')[:100]}")
    inputs, outputs = about.get("mlflow.spanInputs"), about.get("mlflow.spanOutputs")
    tools = about.get("mlflow.chat.tools") or mapping(inputs).get("tools")
    if inputs is None or outputs is None:
        events = [
            (str(mapping(each).get("name", "")), attributes(mapping(each).get("attributes")))
            for each in items(span.get("events"))
        ]
        asked, answered, found = genai.said(about, events)
        tools = tools or found
    else:
        asked, answered = list(_asked(inputs)), [_answer(outputs)]
    if not asked or not answered:
        raise ValueError("the trace tells no question and answer")
    start, end = (seconds(span.get(f"{side}_time_unix_nano")) or 0.0 for side in ("start", "end"))
    usage = mapping(about.get("mlflow.chat.tokenUsage"))
    return Trace(
        id=str(span.get("span_id", "")),
        place=place,
        messages=(*asked, answered[0]),
        tools=answers.offered({"tools": tools}),
        time=time(start),
        model=name(first(about, "mlflow.llm.model") or mapping(inputs).get("model")),
        duration=end - start if 0 < start <= end else None,
        prompt_tokens=whole(usage.get("input_tokens")),
        completion_tokens=whole(usage.get("output_tokens")),
    )


def _asked(inputs: Any) -> tuple[Message, ...]:
    """The messages of a span's inputs: a request, messages, or one text by whatever name."""
    if isinstance(inputs, list):
        inputs = {"messages": inputs}
    if isinstance(inputs, Mapping):
        if not inputs.keys().isdisjoint({"messages", "prompt", "input"}):
            return answers.asked(inputs)[0]
        texts = [each for each in inputs.values() if isinstance(each, str) and each.strip()]
        inputs = texts[0] if len(texts) == 1 else None
    if not isinstance(inputs, str) or not inputs.strip():
        raise ValueError("the inputs of the trace hold neither messages nor one text")
    return (Message("user", (inputs,)),)


def _answer(outputs: Any) -> Message:
    if isinstance(outputs, str):
        return Message("assistant", (outputs,))
    if isinstance(outputs, Mapping) and outputs.keys().isdisjoint({"choices", "output", "role", "content", "error"}):
        if isinstance(said := outputs.get("messages"), list) and said:
            outputs = said[-1]
        else:
            texts = [each for each in outputs.values() if isinstance(each, str) and each.strip()]
            if len(texts) == 1:
                return Message("assistant", (texts[0],))
    return answers.answer(outputs)[0]


def _assessments(info: Json) -> Iterator[Assessment]:
    """What was said of a trace and stands: nothing that was replaced, and no judge's error."""
    for each in map(mapping, items(info.get("assessments"))):
        source = mapping(each.get("source"))
        kind = next((kind for kind in ("feedback", "expectation") if mapping(each.get(kind))), None)
        if kind is None or each.get("valid") is False or mapping(mapping(each[kind]).get("error")):
            continue
        held = mapping(each[kind])
        value = held["value"] if "value" in held else decoded(mapping(held.get("serialized_value")).get("value"))
        own = str(each.get("assessment_name") or kind)
        yield Assessment(
            id=name(each.get("assessment_id")) or f"{own}.{len(own)}",
            source=SOURCES.get(str(source.get("source_type")), "unknown"),
            by=name(source.get("source_id")) or "",
            kind=kind,
            name=name(own) or kind,
            value=value,
            rationale=str(each.get("rationale") or ""),
            time=time(first(each, "last_update_time", "create_time")),
        )


def _verify(file: Path, address: str) -> None:
    """Look at a database with plain SQLite before MLflow, which would make or migrate it.

    Raises:
        DataError: The installed MLflow cannot read it.
    """
    if not mlflow_database.is_made(file):
        raise DataError(f"source.path={file} does not exist or is empty: name MLflow's database, or a server's address")
    try:
        with contextlib.closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = str(connection.execute("SELECT version_num FROM alembic_version").fetchone()[0])
    except (sqlite3.Error, TypeError) as error:
        raise DataError(f"source.path={file} is no database of MLflow: {error}") from error
    if said := mlflow_database.mismatch(address, found):
        raise DataError(f"source.path={file} {said}")


def rows(address: str, experiment: str | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The traces of a server or database, oldest first, page by page.

    Args:
        address: ``http://SERVER``, or ``sqlite:///FILE``.
        experiment: Its name; ``None`` for all.

    Raises:
        DataError: It cannot be read, or there is no such experiment.
    """
    if address.startswith(SQLITE):
        _verify(Path(address.removeprefix(SQLITE)), address)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow_database.silence()
    from mlflow import MlflowClient

    try:
        client = MlflowClient(address)
        if experiment is None:
            found = list(client.search_experiments())
        else:
            found = [each for each in [client.get_experiment_by_name(experiment)] if each is not None]
        if not found:
            raise DataError(
                f"MLflow at {mask(address)} has no experiment {experiment!r}: set source.experiment, or null for all"
            )
        token = None
        while True:
            page = client.search_traces(
                locations=[each.experiment_id for each in found],
                max_results=PAGE,
                order_by=["timestamp_ms ASC"],
                page_token=token,
            )
            yield from (("", trace.to_dict()) for trace in page)
            if not (token := page.token):
                return
    except DataError:
        raise
    except Exception as error:
        said = re.sub(r"\s+", " ", str(error))[:200]
        raise DataError(
            f"MLflow at {mask(address)} cannot be read: {mask(said)}: see that it runs, or correct source.path"
        ) from error
