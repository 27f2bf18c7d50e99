"""OpenAI requests with their responses, one call a row: in one row, in five fields, or in the two files of a batch."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from loraloop.records import Quarantined, Trace
from loraloop.source.traces import answers
from loraloop.source.traces.values import decoded, first, mapping, name, time, whole

ANSWER = re.compile(r"^(chat)?cmpl-")
"""What this server and OpenAI put before the id of an answer."""
Row = Mapping[str, Any]


class Requests:
    """Rows of ``request`` and ``response``; a batch's rows have ``custom_id`` and one of ``body`` and ``response``."""

    def __init__(self) -> None:
        self.calls: list[Trace] = []
        self._asked: dict[str, tuple[str, Row]] = {}
        self._answered: dict[str, tuple[str, Row]] = {}

    def knows(self, row: Row) -> str | None:
        """What a row is called; ``None`` for one of another form."""
        if "custom_id" in row and not row.keys().isdisjoint({"body", "response"}):
            return "OpenAI batch"
        if {"workload_id", "request", "response"} <= row.keys():
            return "OpenAI requests with responses and workload"
        return None if row.keys().isdisjoint({"request", "response"}) else "OpenAI requests with responses"

    def add(self, place: str, row: Row) -> None:
        """Read a row.

        Raises:
            ValueError: It is no call.
        """
        request = row.get("request") or (row.get("body") if "custom_id" in row else None)
        batch = name(row.get("custom_id"))
        if batch and not row.get("response") and row.get("error"):
            raise ValueError(f"the call ended with an error: {str(mapping(row['error']) or row['error'])[:100]}")
        if request and row.get("response"):
            self.calls.append(call(place, row, request, row["response"]))
        elif batch and (request or row.get("response")):
            halves = self._asked if request else self._answered
            if batch in halves:
                raise ValueError(f"custom_id {batch} is in {halves[batch][0]} too, so its other half is not known")
            halves[batch] = (place, row)
        else:
            raise ValueError("it has no request" if row.get("response") else "it has no response")

    def end(self) -> list[Quarantined]:
        """Join the halves of a batch; those whose other half is in no row are set aside."""
        aside = []
        for batch, (place, row) in self._asked.items():
            if batch not in self._answered:
                aside.append(Quarantined(place, "no row has the response to its custom_id"))
                continue
            where, answered = self._answered.pop(batch)
            try:
                self.calls.append(
                    call(where, {**row, **answered}, row.get("request") or row["body"], answered["response"])
                )
            except (TypeError, ValueError, RecursionError) as error:
                aside += [Quarantined(place, str(error)), Quarantined(where, str(error))]
        aside += [Quarantined(place, "no row has the request to its custom_id") for place, _ in self._answered.values()]
        return aside


def call(place: str, row: Row, request: Any, response: Any) -> Trace:
    """The call of a request and its response.

    Args:
        place: Of the row.
        row: What stands beside them: ``timestamp``, ``client_id``, ``workload_id``, ``custom_id``.
        request: The body or its JSON.
        response: See :func:`loraloop.source.traces.answers.answer`.

    Raises:
        ValueError: There is no question or no answer.
    """
    body = mapping(request)
    body = mapping(body["body"]) if "body" in body else body
    if not body:
        raise ValueError("the request is no object")
    past, raw = answers.asked(body)
    said, facts = answers.answer(response)
    usage, metadata = mapping(facts.get("usage")), mapping(body.get("metadata"))
    conversation = name(first(row, "conversation_id", "session_id") or metadata.get("conversation"))
    client = name(first(row, "client_id", "user_id") or first(body, "user", "safety_identifier"))
    role = name(row.get("workload_id"))
    return Trace(
        id=ANSWER.sub("", name(facts.get("id")) or name(first(row, "id", "request_id")) or _hash(request, response)),
        place=place,
        messages=(*past, said),
        tools=answers.offered(body),
        raw=raw,
        time=time(first(row, "timestamp", "time", "created_at")) or time(first(facts, "created", "created_at")),
        model=name(first(facts, "model") or body.get("model")),
        client=client,
        conversation=conversation,
        role=role,
        duration=None,
        prompt_tokens=whole(first(usage, "prompt_tokens", "input_tokens")),
        completion_tokens=whole(first(usage, "completion_tokens", "output_tokens")),
        group=json.dumps([conversation, client, role]),
        named=conversation is not None,
    )


def _hash(*values: Any) -> str:
    text = json.dumps([decoded(value) for value in values], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
