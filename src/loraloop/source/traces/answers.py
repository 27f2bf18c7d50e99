"""Requests and responses of OpenAI's API: what was asked, what was answered, whole or in pieces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from loraloop.core import messages
from loraloop.records import Message
from loraloop.source.forms import tools as schemas
from loraloop.source.forms import turns
from loraloop.source.traces.values import decoded, first, items, mapping

DATA = "data:"


def asked(request: Mapping[str, Any]) -> tuple[tuple[Message, ...], bool]:
    """The messages of a request, and whether it is a text to complete.

    Raises:
        ValueError: It asks nothing.
    """
    if said := items(request.get("messages")):
        return turns.read(said, Counter()), False
    prompt = request.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if isinstance(prompt, str) and prompt.strip():
        return (Message("user", (prompt,)),), True
    given = decoded(request.get("input"))
    if isinstance(given, str):
        given = [{"role": "user", "content": given}]
    if isinstance(given, list) and given:
        system = request.get("instructions")
        before = (Message("system", (system,)),) if isinstance(system, str) and system else ()
        return (*before, *responded(given)), False
    raise ValueError("the request has no messages, no prompt and no input")


def offered(request: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """The functions that a request offers; other tools, such as a search that the API itself does, are left out.

    Raises:
        ValueError: One is no schema.
    """
    found = items(request.get("tools")) or items(request.get("functions"))
    ours = [each for each in found if not isinstance(each, Mapping) or each.get("type", "function") == "function"]
    return schemas.read({"tools": ours})


def answer(response: Any) -> tuple[Message, Mapping[str, Any]]:
    """The answer of a response, and the facts beside it: ``id``, ``model``, ``created`` and ``usage``.

    Args:
        response: The body, its JSON, the pieces of a streamed one, or the text of their events; also in an envelope
            with ``status_code`` and ``body``.

    Raises:
        ValueError: It is an error, or holds no answer.
    """
    body = decoded(response)
    if isinstance(body, Mapping) and "body" in body:
        body = decoded(body["body"])
    if isinstance(body, str) and DATA in body:
        body = [decoded(line[len(DATA) :].strip()) for line in body.splitlines() if line.startswith(DATA)]
    if isinstance(body, list):
        return _pieces([each for each in body if isinstance(each, Mapping)])
    if not isinstance(body, Mapping):
        raise ValueError("the response is empty" if not body else "the response is no object")
    if body.get("error"):
        raise ValueError(f"the response is an error: {_short(body['error'])}")
    if str(body.get("object", "")).endswith(".chunk"):
        return _pieces([body])
    return _only(_said(body)), body


def responded(output: Sequence[Any]) -> tuple[Message, ...]:
    """The messages of items as the Responses API writes them: messages, calls and their results.

    Raises:
        ValueError: One of them is none.
    """
    made: list[dict[str, Any]] = []
    for item in output:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "function_call":
            call = {"id": item.get("call_id"), "function": {"name": item.get("name"), "arguments": item["arguments"]}}
            if not made or made[-1]["role"] != "assistant":
                made.append({"role": "assistant", "content": None})
            made[-1].setdefault("tool_calls", []).append(call)
        elif kind == "function_call_output":
            made.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": item.get("output")})
        elif kind in (None, "message"):
            made.append(dict(item) if isinstance(item, Mapping) else {"role": "user", "content": item})
    return messages.read_all(made)


def _said(body: Mapping[str, Any]) -> tuple[Message, ...]:
    choice = mapping((items(body.get("choices")) or [None])[0])
    if said := mapping(choice.get("message")):
        return turns.read([{"role": "assistant", **said}], Counter())
    if isinstance(text := choice.get("text"), str):
        return (Message("assistant", (text,)),)
    if output := items(body.get("output")):
        return responded(output)
    if "role" in body or "content" in body:
        return turns.read([{"role": "assistant", **body}], Counter())
    raise ValueError("the response has no choices and no output")


def _only(said: tuple[Message, ...]) -> Message:
    if [message.role for message in said] != ["assistant"]:
        raise ValueError("the response is not one message of the assistant")
    return said[0]


def _pieces(chunks: Sequence[Mapping[str, Any]]) -> tuple[Message, Mapping[str, Any]]:
    """The answer that streamed pieces make."""
    text, calls, facts = "", dict[str, dict[str, Any]](), dict[str, Any]()
    for chunk in chunks:
        if chunk.get("error"):
            raise ValueError(f"the response is an error: {_short(chunk['error'])}")
        if done := mapping(chunk.get("response")):  # the last events of the Responses API hold the whole
            facts = dict(done)
            continue
        facts |= {key: chunk[key] for key in ("id", "model", "created", "usage") if chunk.get(key)}
        choice = mapping((items(chunk.get("choices")) or [None])[0])
        delta = mapping(choice.get("delta"))
        piece = first(delta, "content") or choice.get("text")
        text += piece if isinstance(piece, str) else ""
        for call in items(delta.get("tool_calls")):
            _grow(calls, mapping(call))
    if items(facts.get("output")):
        return _only(responded(items(facts["output"]))), facts
    if not text and not calls:
        raise ValueError("the streamed response says nothing")
    return messages.read({"role": "assistant", "content": text, "tool_calls": list(calls.values())}), facts


def _grow(calls: dict[Any, dict[str, Any]], piece: Mapping[str, Any]) -> None:
    made = calls.setdefault(str(piece.get("index", 0)), {"id": "", "function": {"name": "", "arguments": ""}})
    function = mapping(piece.get("function"))
    made["id"] = made["id"] or str(piece.get("id") or "")
    for key in ("name", "arguments"):
        made["function"][key] += str(function.get(key) or "")


def _short(error: Any) -> str:
    said = error.get("message") if isinstance(error, Mapping) else error
    return str(said or error)[:100]
