"""OpenAI's responses API: a request becomes one of chat, and chat's answer becomes a response."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import Request
from fastapi.responses import Response
from pydantic import ValidationError

from loraloop.core.workers import Workers
from loraloop.errors import DataError, GrammarError
from loraloop.serve.errors import ApiError, invalid, of
from loraloop.serve.responses_schema import ResponsesRequest
from loraloop.serve.schema import ChatRequest, NeutralChat
from loraloop.serve.service import IGNORED, Service
from loraloop.serve.stream import EventStream

if TYPE_CHECKING:
    from loraloop.records import Session

MOST_BYTES = 64 * 1024 * 1024
"""Conversations that are remembered for ``previous_response_id``; the oldest makes room."""
PREFIX = "resp_"
"""Of a response's id, before that of its session."""
NAMES = {
    r"response_format(\.json_schema)?": "text.format",
    r"max_completion_tokens": "max_output_tokens",
    r"messages(\[\d+\][\w.\[\]]*|(?=[:=])|$)": "input",  # items are other places than messages
    r"(tools\[\d+\]|tool_choice|tools)\.function": r"\1",
    r"reasoning_effort": "reasoning.effort",
    r"verbosity": "text.verbosity",
}
"""Parameters of chat, and what they are called here."""


@dataclass
class Memory:
    """The conversations of the latest responses, as messages of chat; a restart forgets them."""

    _kept: OrderedDict[str, tuple[str | None, bytes]] = field(default_factory=OrderedDict)
    _bytes: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, response: str, key: str | None, messages: Sequence[Mapping[str, Any]]) -> None:
        """Remember what led to a response and its own message, for the key that asked."""
        text = orjson.dumps(list(messages))
        with self._lock:
            self._kept[response] = (key, text)
            self._bytes += len(text)
            while self._bytes > MOST_BYTES:
                self._bytes -= len(self._kept.popitem(last=False)[1][1])

    def find(self, response: str | None, key: str | None) -> list[dict[str, Any]]:
        """The messages up to a response.

        Raises:
            ApiError: It is not remembered, or was given to another key.
        """
        if response is None:
            return []
        owner, text = self._kept.get(response, (None, b""))
        if not text or owner != key:
            raise _unknown(response)
        found: list[dict[str, Any]] = orjson.loads(text)
        return found


@dataclass
class Responses:
    """Answers ``/v1/responses`` through :meth:`loraloop.serve.service.Service.chat`."""

    service: Service
    memory: Memory = field(default_factory=Memory)
    _lookups: Workers = field(default_factory=lambda: Workers("responses", 2))

    async def create(self, request: Request, body: ResponsesRequest) -> Response:
        """Answer at once, or as a stream of events.

        Raises:
            ApiError: The request is none that chat answers.
        """
        key = request.state.key
        past = self.memory.find(body.previous_response_id, key)
        try:
            chat = _chat(body, past)
            if body.previous_response_id is not None:
                previous = body.previous_response_id
                request.state.follows = await self._lookups.run(self._previous, previous, chat.client or key, key)
            response = await self.service.chat(request, chat)
        except (ApiError, GrammarError) as error:
            raise _renamed(of(error)) from None
        if (ignored := response.headers.get(IGNORED)) is not None:
            response.headers[IGNORED] = _ours(ignored)

        def keep(name: str, message: Mapping[str, Any]) -> None:
            if body.store is not False:
                self.memory.put(name, key, [*past, *body.said, message])

        if isinstance(response, EventStream):
            return response.mapped(lambda events: _events(events, body, keep))
        if response.status_code == 200:
            answer = orjson.loads(response.body)
            choice = answer["choices"][0]
            told = _Told(body, answer)
            output = told.output(choice["message"], choice["logprobs"])
            keep(told.id, _message(choice["message"]))
            told.finish, told.usage = choice["finish_reason"], answer["usage"]
            headers = {name: value for name, value in response.headers.items() if name.startswith("x-loraloop")}
            return Response(orjson.dumps(told.whole(output)), headers=headers, media_type="application/json")
        return response

    def _previous(self, response: str, client: str | None, key: str | None) -> Session:
        """The session of a remembered response, which is still kept and was given to this client.

        Raises:
            ApiError: It was erased since, or another client of the key got it.
        """
        try:
            kept = self.service.sessions.session(response.removeprefix(PREFIX))
        except DataError:
            raise _unknown(response) from None
        if (kept.client, kept.asked_key) != (client, key):
            raise _unknown(response)
        return kept


def _unknown(response: str) -> ApiError:
    message = (
        f"previous_response_id={response} is not known: it was not stored, was erased, is too old, was given to "
        "another user, or the server was started since; send the conversation in input"
    )
    return ApiError(400, message, param="previous_response_id", code="previous_response_not_found")


def _chat(body: ResponsesRequest, past: Sequence[dict[str, Any]]) -> ChatRequest:
    try:
        return ChatRequest(**body.chat(past))
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise invalid(problems, NeutralChat.model_fields) from None


def _renamed(error: ApiError) -> ApiError:
    """The same error, with the names that a client of this API knows."""
    renamed = ApiError(error.status, _ours(str(error)), param=error.param and _ours(error.param), code=error.code)
    renamed.headers = error.headers
    return renamed


def _ours(text: str) -> str:
    for theirs, ours in NAMES.items():
        text = re.sub(rf"\b{theirs}", ours, text)
    return text


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """What is remembered of an answer: as its client would send it back."""
    kept = {"role": "assistant", "content": message.get("content")}
    if message.get("tool_calls"):
        return kept | {"tool_calls": message["tool_calls"]}
    return kept | {"content": kept["content"] or ""}


class _Told:
    """A response while it is made.

    Args:
        body: The request.
        chat: Chat's answer, or the first chunk of its stream.
    """

    def __init__(self, body: ResponsesRequest, chat: Mapping[str, Any]) -> None:
        self._body, self._chat = body, chat
        self.session = str(chat["id"]).removeprefix("chatcmpl-")
        self.id = PREFIX + self.session
        self.finish: str | None = None
        self.usage: Mapping[str, Any] | None = None

    def whole(self, output: Sequence[Mapping[str, Any]], status: str | None = None) -> dict[str, Any]:
        """The response object."""
        body, cut = self._body, self.finish == "length"
        text = body.text.model_dump(exclude_none=True) if body.text else {}
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._chat["created"],
            "status": status or ("incomplete" if cut else "completed"),
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self._chat["model"],
            "output": list(output),
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": body.previous_response_id,
            "reasoning": {"effort": None, "summary": None},
            "store": body.store is not False,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "text": {"format": {"type": "text"}} | text,
            "tool_choice": body.tool_choice or "auto",
            "tools": [tool.model_dump(exclude={"defer_loading"}) for tool in body.tools or ()],
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "truncation": "disabled",
            "usage": self._usage(),
            "user": body.user,
            "metadata": body.metadata or {},
            "loraloop": self._chat["loraloop"],
        }

    def output(self, message: Mapping[str, Any], logprobs: Mapping[str, Any] | None) -> list[dict[str, Any]]:
        """The items of an answer: its text, then its calls."""
        calls = message.get("tool_calls") or ()
        items = [self.call(place, call) for place, call in enumerate(calls)]
        if message.get("content") or not items:
            items.insert(0, self.message(message.get("content") or "", (logprobs or {}).get("content") or []))
        return items

    def message(self, text: str, logprobs: Sequence[Any] = (), status: str = "completed") -> dict[str, Any]:
        """The item of an answer's text."""
        content = [] if status == "in_progress" else [text_part(text, logprobs)]
        return {
            "id": f"msg_{self.session}",
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def call(self, place: int, call: Mapping[str, Any], status: str = "completed") -> dict[str, Any]:
        """The item of a call."""
        function = call["function"]
        return {
            "id": f"fc_{self.session}_{place}",
            "type": "function_call",
            "call_id": call["id"],
            "name": function["name"],
            "arguments": "" if status == "in_progress" else function["arguments"],
            "status": status,
        }

    def _usage(self) -> dict[str, Any] | None:
        if self.usage is None:
            return None
        return {
            "input_tokens": self.usage["prompt_tokens"],
            "input_tokens_details": {**self.usage["prompt_tokens_details"], "cache_write_tokens": 0},
            "output_tokens": self.usage["completion_tokens"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": self.usage["total_tokens"],
        }


def text_part(text: str, logprobs: Sequence[Any] = ()) -> dict[str, Any]:
    """The content of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": list(logprobs)}


async def _events(chunks: AsyncIterator[Any], body: ResponsesRequest, keep: Any) -> AsyncIterator[dict[str, Any]]:
    """The events of a response, numbered, from the chunks of chat's stream."""
    number = 0
    async for event in _unnumbered(chunks, body, keep):
        yield event | {"sequence_number": number}
        number += 1


async def _unnumbered(chunks: AsyncIterator[Any], body: ResponsesRequest, keep: Any) -> AsyncIterator[dict[str, Any]]:
    told: _Told | None = None
    text = ""
    logprobs: list[Any] = []
    calls: list[dict[str, Any]] = []
    async for chunk in chunks:
        if isinstance(chunk, bytes):  # [DONE], which this API does not send
            continue
        if "error" in chunk:
            error = {"code": "server_error", "message": _ours(chunk["error"]["message"])}
            failed = told.whole([], "failed") if told else {"object": "response", "status": "failed"}
            yield {"type": "response.failed", "response": failed | {"error": error}}
            return
        if told is None:
            told = _Told(body, chunk)
            yield {"type": "response.created", "response": told.whole([], "in_progress")}
            yield {"type": "response.in_progress", "response": told.whole([], "in_progress")}
        told.usage = chunk.get("usage") or told.usage
        for choice in chunk["choices"]:
            told.finish = choice["finish_reason"] or told.finish
            delta = choice["delta"]
            calls += delta.get("tool_calls") or []
            if said := delta.get("content"):
                if not text:
                    for event in _opened(told):
                        yield event
                text += said
                likely = (choice.get("logprobs") or {}).get("content") or []
                logprobs += likely
                place = _at(told.message("")["id"], 0)
                yield {"type": "response.output_text.delta", **place, "delta": said, "logprobs": likely}
    if told is None:
        return
    if not text and not calls:
        for event in _opened(told):
            yield event
    message = {"content": text, "tool_calls": [{key: call[key] for key in call if key != "index"} for call in calls]}
    output = told.output(message, {"content": logprobs})
    for index, item in enumerate(output):
        for event in _closed(index, item) if item["type"] == "message" else _called(index, item):
            yield event
    keep(told.id, _message(message))
    kind = "response.incomplete" if told.finish == "length" else "response.completed"
    yield {"type": kind, "response": told.whole(output)}


def _at(item: str, place: int) -> dict[str, Any]:
    return {"item_id": item, "output_index": place, "content_index": 0}


def _opened(told: _Told) -> Iterator[dict[str, Any]]:
    """The message begins."""
    item = told.message("", status="in_progress")
    yield {"type": "response.output_item.added", "output_index": 0, "item": item}
    yield {"type": "response.content_part.added", **_at(item["id"], 0), "part": text_part("")}


def _closed(place: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The message is whole."""
    (part,) = item["content"]
    at = _at(item["id"], place)
    yield {"type": "response.output_text.done", **at, "text": part["text"], "logprobs": part["logprobs"]}
    yield {"type": "response.content_part.done", **at, "part": part}
    yield {"type": "response.output_item.done", "output_index": place, "item": item}


def _called(place: int, item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A call, which is whole when it is known to be one."""
    at = {"item_id": item["id"], "output_index": place}
    begun = item | {"arguments": "", "status": "in_progress"}
    yield {"type": "response.output_item.added", "output_index": place, "item": begun}
    yield {"type": "response.function_call_arguments.delta", **at, "delta": item["arguments"]}
    done = {"arguments": item["arguments"], "name": item["name"]}
    yield {"type": "response.function_call_arguments.done", **at, **done}
    yield {"type": "response.output_item.done", "output_index": place, "item": item}
