"""Messages in OpenAI's form."""

from __future__ import annotations

import contextlib
import json
import re

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core.messages import for_template, read, read_all, write
from loraloop.records import Message, ToolCall

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAME = TEXT.filter(bool)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT, lambda each: st.lists(each, max_size=2)
)
CALLS = st.lists(st.builds(ToolCall, NAME, st.dictionaries(TEXT, JSON, max_size=2), TEXT), max_size=2).map(tuple)
MESSAGES = st.builds(
    Message,
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.lists(TEXT, min_size=1, max_size=3).map(tuple),
    CALLS,
    TEXT,
    TEXT,
    st.booleans(),
)


@given(message=MESSAGES)
def test_a_message_that_was_written_is_read_as_it_was(message):
    """Parts, calls with their arguments, ids, names and weights survive JSON."""
    assert read(orjson.loads(orjson.dumps(write(message)))) == message


@given(
    data=st.recursive(
        JSON,
        lambda each: st.dictionaries(
            st.sampled_from(["role", "content", "tool_calls", "function", "weight", "text", "type"]) | TEXT,
            each,
            max_size=4,
        ),
    )
)
def test_any_json_is_a_message_or_says_why_not(data):
    """Whatever stands in the place of a message is read, or refused by a ValueError, never by anything else."""
    with contextlib.suppress(ValueError):
        assert isinstance(read(data), Message)


def test_other_spellings_are_read():
    """Developers are systems, functions tools, an old function call is a call, arguments may be an object."""
    said = read_all(
        [
            {"role": "developer", "content": [{"type": "text", "text": "a"}, "b"]},
            {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"at": 1}'}},
            {"role": "function", "name": "look", "content": "c"},
            {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": {"at": 2}}}]},
        ]
    )
    assert said == (
        Message("system", ("a", "b")),
        Message("assistant", (), (ToolCall("look", {"at": 1}),)),
        Message("tool", ("c",), name="look"),
        Message("assistant", (), (ToolCall("look", {"at": 2}),)),
    )


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "wizard", "content": "a"}, "message 1: unknown role 'wizard': it is one of system, user"),
        ({"role": "user", "content": [{"type": "image_url", "image_url": {}}]}, "type 'image_url' is no text"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}, "of f are not JSON"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}, "f are not an object"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "a tool call has no name"),
        ({"role": "assistant", "content": "a", "weight": 0.5}, "weight 0.5: a turn is learned (1) or not (0)"),
        ("hello", "a message is an object with role and content, not 'hello'"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_named(message, says):
    """The place, the value and the rule are in the error."""
    with pytest.raises(ValueError, match=re.escape(says)):
        read_all([message])


def test_big_numbers_keep_their_digits():
    """An integer of more than 64 bits in a call's arguments is that integer."""
    (call,) = read(
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": f'{{"n": {2**70}}}'}}]}
    ).tool_calls
    assert call.arguments == {"n": 2**70}
    assert json.loads(write(Message("assistant", (), (call,)))["tool_calls"][0]["function"]["arguments"]) == {
        "n": 2**70
    }


def test_a_template_is_given_arguments_as_values():
    """Templates print arguments as JSON themselves, so they get the object and not its text."""
    said = for_template(Message("assistant", ("a", "b"), (ToolCall("f", {"x": 1}),)))
    assert said["content"] == "a\nb"
    assert said["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
