"""Messages in OpenAI's form (https://platform.openai.com/docs/api-reference/chat), as they are written and read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from loraloop.core.tables_json import loads
from loraloop.records import Message, ToolCall
from loraloop.records.conversation import SPEAKERS, Speaker

_ROLES: Mapping[Any, Speaker] = {role: role for role in SPEAKERS} | {"developer": "system", "function": "tool"}


def read(data: Any) -> Message:
    """A message of its JSON.

    Raises:
        ValueError: It is none: the role is unknown, a part is no text, or a call's arguments are no JSON object.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"a message is an object with role and content, not {_short(data)}")
    role = data.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise ValueError(f"unknown role {_short(role)}: it is one of {', '.join(_ROLES)}")
    calls = tuple(_call(call) for call in _list(data, "tool_calls"))
    if old := data.get("function_call"):
        calls = (*calls, _call({"function": old}))
    return Message(
        _ROLES[role],
        _parts(data.get("content")),
        calls,
        tool_call_id=str(data.get("tool_call_id") or ""),
        name=str(data.get("name") or ""),
        learned=_learned(data.get("weight")),
    )


def read_all(data: Any) -> tuple[Message, ...]:
    """The messages of a JSON list.

    Raises:
        ValueError: As :func:`read`; says which message.
    """
    if not isinstance(data, Sequence) or isinstance(data, str):
        raise ValueError(f"messages are a list, not {_short(data)}")
    made = []
    for number, each in enumerate(data, 1):
        try:
            made.append(read(each))
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from error
    return tuple(made)


def write(message: Message) -> dict[str, Any]:
    """The JSON of a message; :func:`read` reads it back."""
    said: dict[str, Any] = {"role": message.role, "content": message.text if message.parts else None}
    if len(message.parts) > 1:
        said["content"] = [{"type": "text", "text": part} for part in message.parts]
    if message.tool_calls:
        said["tool_calls"] = [_written(call) for call in message.tool_calls]
    if message.tool_call_id:
        said["tool_call_id"] = message.tool_call_id
    if message.name:
        said["name"] = message.name
    if not message.learned:
        said["weight"] = 0
    return said


def for_template(message: Message) -> dict[str, Any]:
    """What a chat template renders: text as one string, and the arguments of calls as values rather than as JSON."""
    said: dict[str, Any] = {"role": message.role, "content": message.text}
    if message.tool_calls:
        said["tool_calls"] = [
            {
                "type": "function",
                "function": {"name": call.name, "arguments": dict(call.arguments)},
                **({"id": call.id} if call.id else {}),
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        said["tool_call_id"] = message.tool_call_id
    if message.name:
        said["name"] = message.name
    return said


def _written(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": as_json(call.arguments)}}


def as_json(arguments: Mapping[str, Any]) -> str:
    """The arguments of a call as JSON text; numbers may be of any size, which orjson does not write."""
    return json.dumps(dict(arguments), ensure_ascii=False)


def _call(data: Any) -> ToolCall:
    function = data.get("function") if isinstance(data, Mapping) else None
    if not isinstance(function, Mapping):
        raise ValueError(f"a tool call is an object with a function, not {_short(data)}")
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a tool call has no name")
    return ToolCall(name, arguments(function.get("arguments"), name), str(data.get("id") or ""))


def arguments(value: Any, name: str) -> Mapping[str, Any]:
    """The arguments of a call of ``name``, given as an object or as its JSON; nothing stands for none.

    Raises:
        ValueError: They are no JSON object.
    """
    if value is None or value == "":
        return {}
    if isinstance(value, str):
        try:
            value = loads(value.encode("utf-8", "surrogatepass"))
        except ValueError as error:
            raise ValueError(f"the arguments of {name} are not JSON: {error}") from error
    if not isinstance(value, Mapping):
        raise ValueError(f"the arguments of {name} are not an object but {_short(value)}")
    made = {str(key): each for key, each in value.items()}
    try:
        json.dumps(made, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"the arguments of {name} hold a value that JSON has no word for, such as NaN") from error
    return made


def _parts(content: Any) -> tuple[str, ...]:
    if content is None:
        return ()
    if isinstance(content, str):
        return (content,)
    if not isinstance(content, Sequence):
        raise ValueError(f"content is text or a list of parts, not {_short(content)}")
    return tuple(part if isinstance(part, str) else _text(part) for part in content)


def _text(part: Any) -> str:
    if isinstance(part, Mapping) and isinstance(part.get("text"), str):
        return str(part["text"])
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    raise ValueError(f"a part of the type {kind!r} is no text, and a text model reads nothing else")


def _learned(weight: Any) -> bool:
    if weight not in (None, 0, 1):
        raise ValueError(
            f"weight {_short(weight)}: a turn is learned (1) or not (0), and nothing between: write 0 or 1"
        )
    return bool(weight is None or weight)


def _list(data: Mapping[str, Any], name: str) -> Sequence[Any]:
    value = data.get(name)
    if value is None:
        return ()
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"{name} is a list, not {_short(value)}")
    return value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
