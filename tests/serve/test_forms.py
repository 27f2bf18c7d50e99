"""What a request's ``response_format`` and ``tool_choice`` hold an answer to."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from loraloop.records import Grammar
from loraloop.serve import errors
from loraloop.serve.schema import ChatRequest

CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "x"}]}
WHERE = {"type": "object", "properties": {"at": {"type": "integer"}}, "required": ["at"]}
OBJECT = {"type": "object"}
NONE = {"type": "object", "properties": {}, "additionalProperties": False}


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


TOOLS = [tool("look", parameters=WHERE), tool("wait")]
CALLS = (("look", WHERE), ("wait", NONE))
NAMED = {"type": "function", "function": {"name": "wait"}}
FORMAT = {"type": "json_schema", "json_schema": {"name": "n", "schema": WHERE, "strict": True}}


@pytest.mark.parametrize(
    ("more", "wanted"),
    [
        ({}, None),
        ({"tools": TOOLS}, None),
        ({"tools": TOOLS, "tool_choice": "auto", "response_format": {"type": "text"}}, None),
        ({"response_format": {"type": "json_object"}}, Grammar(schema=OBJECT)),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, Grammar(schema=OBJECT)),
        ({"response_format": FORMAT}, Grammar(schema=WHERE)),
        ({"response_format": FORMAT, "tools": TOOLS}, Grammar(schema=WHERE, tools=CALLS)),
        ({"response_format": FORMAT, "tools": TOOLS, "tool_choice": "none"}, Grammar(schema=WHERE)),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": FORMAT}, Grammar(tools=CALLS)),
        (
            {"tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False},
            Grammar(tools=CALLS, parallel=False),
        ),
        ({"tools": TOOLS, "tool_choice": NAMED}, Grammar(tools=CALLS[1:], parallel=False)),
    ],
)
def test_what_an_answer_is_held_to(more, wanted):
    """A format holds the answer to a schema, a forced choice to calls, and a format with tools to either."""
    assert ChatRequest(**CHAT, **more).grammar == wanted


@pytest.mark.parametrize(
    ("more", "param", "says"),
    [
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tool_choice": NAMED, "tools": [tool("look")]}, "tool_choice", "no tool is called wait; there are: look"),
        ({"tool_choice": "always", "tools": TOOLS}, "tool_choice", "'required'"),
        ({"tool_choice": {"type": "function"}, "tools": TOOLS}, "tool_choice.function", "required"),
        ({"tools": [tool("look"), tool("wait"), tool("look")]}, "tools", "more than one tool is called look"),
        ({"response_format": {"type": "xml"}}, "response_format", "text, json_object or json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "required"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a b"}}},
            "response_format.json_schema.name",
            "pattern",
        ),
    ],
)
def test_what_cannot_be_met(more, param, says):
    """A choice without its tool, two tools of one name, and a format that there is not, are named."""
    with pytest.raises(ValidationError) as caught:
        ChatRequest(**CHAT, **more)
    error = errors.invalid([{**each, "loc": ("body", *each["loc"])} for each in caught.value.errors()], {})
    assert (error.status, error.param) == (400, param)
    assert says in str(error)


def test_a_strict_tool_of_free_choice():
    """One strict tool holds every call: its own to the schema, those of others to an object."""
    tools = [tool("look", parameters=WHERE, strict=True), tool("wait", parameters=WHERE, strict=False)]
    wanted = Grammar(tools=(("look", WHERE), ("wait", OBJECT)), free=True)
    assert ChatRequest(**CHAT, tools=tools).grammar == ChatRequest(**CHAT, tools=tools, tool_choice="auto").grammar
    assert ChatRequest(**CHAT, tools=tools).grammar == wanted
    assert ChatRequest(**CHAT, tools=tools, tool_choice="none").grammar is None
    assert ChatRequest(**CHAT, tools=tools, tool_choice="required").grammar == Grammar(
        tools=(("look", WHERE), ("wait", WHERE))
    )
