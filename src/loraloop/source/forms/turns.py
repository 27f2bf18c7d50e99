"""Lists of messages as they are found: OpenAI's form, ShareGPT's, and mixtures of the two."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from loraloop.core import messages
from loraloop.core.tables_json import loads
from loraloop.records import Message
from loraloop.records.conversation import SPEAKERS
from loraloop.source.forms.draft import parsed

ROLES = {
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "chatbot": "assistant",
    "model": "assistant",
    "observation": "tool",
    "tool_response": "tool",
    "function_response": "tool",
    "ipython": "tool",
}
"""ShareGPT's names of the roles and their variants, beside those of OpenAI."""
CALLS = frozenset({"function_call", "tool_call", "tool_calls"})
"""Roles whose content is one call as JSON, or a list of calls."""
KNOWN = frozenset(SPEAKERS) | {"developer", "function"} | ROLES.keys() | CALLS
"""Every name of a role."""
ROLE_KEYS = ("role", "from", "speaker")
CONTENT_KEYS = ("content", "value", "text")
SAYING = (*CONTENT_KEYS, "tool_calls", "function_call")
"""Keys of what a message says."""
LONGEST_LITERAL = 100_000
"""Characters up to which arguments are tried as a Python literal."""


def read(value: Any, repaired: Counter[str]) -> tuple[Message, ...]:
    """The messages of a list, or of its JSON.

    Args:
        value: The list.
        repaired: What is put right is counted here.

    Raises:
        ValueError: It is no list of messages; says which message is faulty, and how.
    """
    value = parsed(value, "the list of messages")
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"messages are a list, not {type(value).__name__}")
    made = []
    for number, item in enumerate(value, 1):
        try:
            made.append(messages.read(_openai(item, repaired)))
        except ValueError as error:
            raise ValueError(f"message {number}: {error}") from error
    return tuple(made)


def holds(value: Any) -> bool:
    """Whether a value is a message or a list of messages: a member has a role and says something.

    A text is one where it is the JSON of a list and the role has a name that is known: other JSON is an answer.
    """
    known = isinstance(value, str)
    if known:
        if not value.lstrip().startswith("["):
            return False
        try:
            value = parsed(value, "the list of messages")
        except (ValueError, RecursionError):
            return False
    members = value if isinstance(value, list | tuple) else [value]
    return any(isinstance(each, Mapping) and _is_message(each, known) for each in members)


def _is_message(item: Mapping[str, Any], known: bool) -> bool:
    role = _role(item)
    named = not known or (isinstance(role, str) and role.strip().lower() in KNOWN)
    return role is not None and named and any(key in item for key in SAYING)


def _role(item: Mapping[str, Any]) -> Any:
    return next((item[key] for key in ROLE_KEYS if item.get(key) is not None), None)


def _openai(item: Any, repaired: Counter[str]) -> Any:
    """A message in OpenAI's form, whichever it was written in."""
    if not isinstance(item, Mapping):
        return item
    role = _role(item)
    content = next((item[key] for key in CONTENT_KEYS if item.get(key) not in (None, "")), None)
    name = role.strip().lower() if isinstance(role, str) else ""
    if name in CALLS:
        called = parsed(content, "the call")
        made = _calls(called if isinstance(called, list) else [called], repaired)
        return {"role": "assistant", "tool_calls": made, "weight": item.get("weight")}
    if ROLES.get(name, name) in ("tool", "function") and isinstance(content, Mapping):
        content = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS).decode()
    changed = {"role": ROLES.get(name, name or role), "content": content}
    if isinstance(calls := item.get("tool_calls"), list):
        changed["tool_calls"] = _calls(calls, repaired)
    if isinstance(old := item.get("function_call"), Mapping):
        changed["function_call"] = _called(old, repaired)
    return {**item, **changed}


def _calls(calls: list[Any], repaired: Counter[str]) -> list[Any]:
    """Calls in OpenAI's form; ``name`` and ``arguments`` may also stand in the call itself."""
    made = []
    for call in calls:
        function = call.get("function", call) if isinstance(call, Mapping) else None
        called = _called(function, repaired) if isinstance(function, Mapping) else None
        made.append(call if called is None else {"id": call.get("id"), "function": called})
    return made


def _called(function: Mapping[str, Any], repaired: Counter[str]) -> Mapping[str, Any]:
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str) and (literal := _literal(arguments)) is not None:
        repaired["arguments written as a Python literal were read"] += 1
        arguments = literal
    return {"name": function.get("name"), "arguments": arguments}


def _literal(arguments: str) -> Mapping[str, Any] | None:
    """The object that a text is in Python's notation, where it is no JSON."""
    if not arguments.lstrip().startswith("{") or len(arguments) > LONGEST_LITERAL:
        return None
    try:
        loads(arguments.encode("utf-8", "surrogatepass"))
    except ValueError:
        pass
    else:
        return None
    try:
        value = ast.literal_eval(arguments.strip())
        orjson.dumps(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, Mapping) else None
