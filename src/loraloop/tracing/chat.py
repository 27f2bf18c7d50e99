"""A session as chat messages: in OpenAI's form, which MLflow shows, and in the parts of OpenTelemetry."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from loraloop.core.messages import as_json
from loraloop.core.tool_calls import read
from loraloop.records import Session

_TAGGED = re.compile("<tool_call>.*?</tool_call>", re.DOTALL)


def asked(session: Session) -> list[dict[str, Any]]:
    """The messages that were asked; a text is one of the user."""
    if isinstance(session.prompt, str):
        return [{"role": "user", "content": session.prompt}]
    return [dict(turn) for turn in session.prompt if isinstance(turn, Mapping)]


def answered(session: Session) -> dict[str, Any]:
    """The message that was answered, with its tool calls as the client got them; what is no call is text."""
    text = session.answer or ""
    message: dict[str, Any] = {"role": "assistant", "content": text}
    try:
        calls = read(text) if session.tools and "<tool_call>" in text else ()
    except ValueError:
        return message
    if calls:
        message["content"] = _TAGGED.sub("", text).strip() or None
        message["tool_calls"] = [
            {
                "id": f"call_{session.id}_{place}",
                "type": "function",
                "function": {"name": call.name, "arguments": as_json(call.arguments)},
            }
            for place, call in enumerate(calls)
        ]
    return message


def finish(session: Session) -> str:
    """Why the answer ended, as far as the session knows."""
    if session.status != "ok":
        return session.status or "stop"
    return "tool_calls" if answered(session).get("tool_calls") else "stop"


def in_parts(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as ``gen_ai.input.messages`` holds it: role and parts."""
    role, content = str(message.get("role")), message.get("content")
    if role == "tool":
        response = {"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content}
        return {"role": role, "parts": [response]}
    parts = [{"type": "text", "content": str(content)}] if content else []
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        given = {"name": function.get("name"), "arguments": _arguments(function.get("arguments"))}
        parts.append({"type": "tool_call", "id": call.get("id"), **given})
    return {"role": role, "parts": parts}


def _arguments(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
