"""Tool calls in a model's answer: reading them, and comparing them with the schemas and with the expected ones.

After the manner of the AST check of the Berkeley function-calling leaderboard (Patil et al. 2025,
https://gorilla.cs.berkeley.edu/leaderboard.html): the calls are compared as values rather than as text. Other than
there, a text must be equal to the letter but for white space around it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from loraloop.core.messages import arguments, as_json
from loraloop.records import ToolCall

Tools = Sequence[Mapping[str, Any]]

_TAG = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_OPEN = "<tool_call>"


@dataclass(frozen=True, slots=True)
class Judgement:
    """How the calls of an answer compare with the expected ones.

    Attributes:
        valid: The answer parses, and each of its calls, at least one, fits the schema of an offered tool.
        names: The same tools are called, each as often.
        arguments: The same arguments are given, each as often, to whichever tool.
        right: The same calls are made.
    """

    valid: bool = False
    names: bool = False
    arguments: bool = False
    right: bool = False


def read(answer: str) -> tuple[ToolCall, ...]:
    """The calls in an answer; none where it is plain text.

    Args:
        answer: With calls in ``<tool_call>`` tags, or all of it as JSON: one call or a list of calls, each as ``name``
            and ``arguments`` or in OpenAI's form, or an object with ``tool_calls``.

    Raises:
        ValueError: Something begins as a call and is none; says why.
    """
    if _OPEN in answer:
        if answer.count(_OPEN) != answer.count("</tool_call>"):
            raise ValueError("a <tool_call> is not closed")
        return tuple(_call(_json(each)) for each in _TAG.findall(answer))
    text = answer.strip()
    if not text.startswith(("{", "[")):
        return ()
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return ()
    if isinstance(data, Mapping) and isinstance(data.get("tool_calls"), list):
        data = data["tool_calls"]
    found = data if isinstance(data, list) else [data]
    return tuple(_call(each) for each in found) if found and all(map(_begins, found)) else ()


def given(answer: str, tools: bool, *, parallel: bool = True) -> tuple[str, tuple[ToolCall, ...]]:
    """The text of an answer and its calls, as its client gets them.

    Where something that stands for a call is none, or no tools are offered, the whole answer is text, as it is. JSON
    without tags is text too, as a stream has shown it before it is known to be a call.

    Args:
        answer: What the model said.
        tools: Whether any are offered.
        parallel: Whether there may be more than one call; others than the first are left out.
    """
    if not tools or _OPEN not in answer:
        return answer, ()
    try:
        calls = read(answer)
    except ValueError:
        return answer, ()
    return _TAG.sub("", answer).strip(), calls if parallel else calls[:1]


def is_broken(answer: str, tools: bool) -> bool:
    """Whether tools are offered and something in an answer begins as a call and is none: its client gets it as text."""
    return tools and _OPEN in answer and not given(answer, tools)[1]


def without_later(answer: str) -> str:
    """An answer without the calls after its first, where all are calls."""
    first = _TAG.search(answer)
    if first is None or len(given(answer, tools=True)[1]) < 2:
        return answer
    return answer[: first.end()] + _TAG.sub("", answer[first.end() :]).rstrip()


def in_openai_form(calls: Sequence[ToolCall], session: str) -> list[dict[str, Any]]:
    """Calls as a message of OpenAI's API has them; their ids are made of the session and their places."""
    return [
        {
            "id": f"call_{session}_{place}",
            "type": "function",
            "function": {"name": call.name, "arguments": as_json(call.arguments)},
        }
        for place, call in enumerate(calls)
    ]


def problem(call: ToolCall, tools: Tools) -> str | None:
    """Why a call does not fit the tools that are offered; ``None`` if it does.

    What is no JSON schema, or is in another part of it than type, choices, properties and required ones, bounds
    nothing.
    """
    schema = parameters(tools).get(call.name)
    if schema is None:
        return f"no tool is called {call.name}"
    properties = _mapping(schema.get("properties"))
    if missing := [name for name in _strings(schema.get("required")) if name not in call.arguments]:
        return f"{call.name} needs {', '.join(missing)}"
    rules = {name: _mapping(properties.get(name)) for name in call.arguments}
    if unknown := [name for name in rules if name not in properties and not _open(schema)]:
        return f"{call.name} has no {', '.join(unknown)}"
    wrong = [name for name, rule in rules.items() if not _fits(_normal(call.arguments[name], rule), rule)]
    return f"{call.name} takes another type as {', '.join(wrong)}" if wrong else None


def judge(answer: str, expected: Sequence[ToolCall], tools: Tools) -> Judgement:
    """Compare the calls of an answer with the expected ones, in whatever order.

    Args:
        answer: What the model said.
        expected: The true calls.
        tools: The schemas that were offered.
    """
    try:
        return _judge(read(answer), expected, tools)
    except (ValueError, RecursionError):  # a model may nest lists without end
        return Judgement()


def _judge(found: Sequence[ToolCall], expected: Sequence[ToolCall], tools: Tools) -> Judgement:
    theirs, ours = [_plain(call, tools) for call in found], [_plain(call, tools) for call in expected]
    return Judgement(
        valid=bool(found) and all(problem(call, tools) is None for call in found),
        names=sorted(name for name, _ in theirs) == sorted(name for name, _ in ours),
        arguments=sorted(given for _, given in theirs) == sorted(given for _, given in ours),
        right=sorted(theirs) == sorted(ours),
    )


def _json(text: str) -> Any:
    try:
        text.encode()  # half of a surrogate pair, which JSON can write, is no text that could be sent on
        made = json.loads(text, parse_constant=_refuse)
        json.dumps(made, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a call is not JSON: {error}") from error
    return made


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no value of JSON")


def _begins(data: Any) -> bool:
    """Whether JSON without tags means to be a call; other objects are answers of their own."""
    return isinstance(data, Mapping) and ("function" in data or {"name", "arguments"} <= data.keys())


def _call(data: Any) -> ToolCall:
    if isinstance(data, Mapping) and isinstance(data.get("function"), Mapping):
        data = data["function"]
    if not isinstance(data, Mapping) or not isinstance(data.get("name"), str) or not data["name"].strip():
        raise ValueError("a call has no name")
    name = data["name"].strip()
    return ToolCall(name, arguments(data.get("arguments"), name))


def parameters(tools: Tools) -> dict[str, Mapping[str, Any]]:
    """The schema of the arguments of each offered tool, by its name; empty where it has none."""
    functions = (_mapping(tool.get("function", tool)) for tool in map(_mapping, tools))
    return {str(each.get("name")): _mapping(each.get("parameters")) for each in functions}


def _mapping(value: Any) -> Mapping[str, Any]:
    """A part of a schema; ``True`` and what is no schema bound nothing."""
    return value if isinstance(value, Mapping) else {}


def _strings(value: Any) -> list[str]:
    """The texts of a list in a schema; none where it is no list."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list | tuple) else []


_ELSEWHERE = frozenset({"$ref", "allOf", "anyOf", "oneOf", "additionalProperties", "patternProperties"})


def _open(schema: Mapping[str, Any]) -> bool:
    """Whether a tool may take arguments that are none of its properties."""
    return any(schema.get(key) for key in _ELSEWHERE)


def _plain(call: ToolCall, tools: Tools) -> tuple[str, str]:
    """Name and arguments so that equal calls are equal: values normalised, defaults filled in, keys in order."""
    properties = _mapping(parameters(tools).get(call.name, {}).get("properties"))
    rules = {str(name): _mapping(rule) for name, rule in properties.items()}
    given = {name: rule["default"] for name, rule in rules.items() if "default" in rule} | dict(call.arguments)
    values = {name: _normal(value, rules.get(name, {})) for name, value in given.items()}
    return call.name, json.dumps(values, sort_keys=True)


def _normal(value: Any, schema: Mapping[str, Any]) -> Any:
    """A value as its schema means it: numbers from texts where a number is asked for, and whole ones as integers."""
    kinds = _kinds(schema)
    if isinstance(value, str) and kinds & {"number", "integer"} and "string" not in kinds:
        value = _number(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, list):
        return [_normal(each, _mapping(schema.get("items"))) for each in value]
    if isinstance(value, Mapping):
        inner = _mapping(schema.get("properties"))
        return {str(name): _normal(each, _mapping(inner.get(name))) for name, each in value.items()}
    return value


def _number(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        return text


_TYPES: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (Mapping,),
    "null": (type(None),),
}


def _fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a normalised value is of the schema's type and among its choices; an unknown type fits all."""
    kinds = _kinds(schema)
    typed = any(
        isinstance(value, _TYPES[each]) and (each == "boolean" or not isinstance(value, bool)) for each in kinds
    )
    choices = schema.get("enum")
    return (typed or not kinds) and (not isinstance(choices, list | tuple) or value in choices)


def _kinds(schema: Mapping[str, Any]) -> frozenset[str]:
    """The types that a schema allows; empty where it allows all, as an unknown one does."""
    kind = schema.get("type")
    kinds = _strings(kind if isinstance(kind, list | tuple) else [kind])
    return frozenset(kinds) if all(each in _TYPES for each in kinds) else frozenset()
