"""A session as chat messages: in OpenAI's form, which MLflow shows, and in the parts of OpenTelemetry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from loraloop.core.tool_calls import given, in_openai_form
from loraloop.records import Session


def asked(session: Session) -> list[dict[str, Any]]:
    """The messages that were asked; a text is one of the user."""
    if isinstance(session.prompt, str):
        return [{"role": "user", "content": session.prompt}]
    return [dict(turn) for turn in session.prompt if isinstance(turn, Mapping)]


def answered(session: Session) -> dict[str, Any]:
    """The message that was answered, with its tool calls as the client got them; what is no call is text."""
    text, calls = given(session.answer or "", bool(session.tools))
    message = {"role": "assistant", "content": text}
    return message | {"content": text or None, "tool_calls": in_openai_form(calls, session.id)} if calls else message


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
