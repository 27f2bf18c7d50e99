"""Tools over HTTP, as the official client uses them."""

from __future__ import annotations

import json

import openai
import pytest

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
CALL = '<tool_call>{"name":"look","arguments":{"at":1}}</tool_call>'


def ask(client, text, **more):
    """One chat with a message of the user, the last words of which the backend repeats."""
    return client.chat.completions.create(**{"model": "ocr@7", "messages": [{"role": "user", "content": text}]} | more)


def test_a_loop_of_tool_calls(shared):
    """The call reaches the client, its message and the tool's result go back, and the session keeps all of it."""
    client = shared.openai()
    first = ask(client, CALL, tools=TOOLS).choices[0]
    (call,) = first.message.tool_calls
    assert (first.finish_reason, call.function.name, json.loads(call.function.arguments)) == (
        "tool_calls",
        "look",
        {"at": 1},
    )
    assert first.message.content == "ocr@7 offers look user:"
    result = {"role": "tool", "tool_call_id": call.id, "content": "a shelf"}
    messages = [{"role": "user", "content": "where"}, first.message, result]
    second = client.chat.completions.create(model="ocr@7", messages=messages, tools=TOOLS).choices[0]
    assert (second.finish_reason, second.message.tool_calls) == ("stop", None)
    kept = shared.sessions.kept[-1]
    assert kept.tools == TOOLS
    assert [turn["role"] for turn in kept.prompt] == ["user", "assistant", "tool"]
    assert kept.prompt[1]["tool_calls"][0]["function"]["name"] == "look"
    assert kept.prompt[2]["tool_call_id"] == call.id


def test_what_is_kept_of_several_calls(shared):
    """A client that takes one call at a time gets the first of two, and the session is that of one."""
    ask(shared.openai(), CALL + CALL, tools=TOOLS)
    assert shared.sessions.kept[-1].answer.count(CALL) == 2
    (call,) = ask(shared.openai(), CALL + CALL, tools=TOOLS, parallel_tool_calls=False).choices[0].message.tool_calls
    assert call.function.name == "look"
    assert shared.sessions.kept[-1].answer.count(CALL) == 1


def test_a_streamed_call(shared):
    """A stream shows the text before a call and then the call, none of its markup."""
    chunks = list(ask(shared.openai(), CALL, tools=TOOLS, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "ocr@7 offers look user: "
    (calls,) = [delta.tool_calls for delta in deltas if delta.tool_calls]
    assert (calls[0].index, calls[0].function.name) == (0, "look")
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_without_tools_a_call_is_text(shared):
    """Where no tools are offered, or none is wanted, an answer is never taken for a call."""
    for more in ({}, {"tools": TOOLS, "tool_choice": "none"}):
        choice = ask(shared.openai(), CALL, **more).choices[0]
        assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
        assert CALL in choice.message.content


def test_an_unfinished_call_is_given_as_text(shared):
    """A call that is no JSON comes as the text that it is, at once and streamed."""
    broken = '<tool_call>{"name":'
    whole = ask(shared.openai(), broken, tools=TOOLS).choices[0]
    assert (whole.finish_reason, whole.message.tool_calls) == ("stop", None)
    assert whole.message.content.endswith(f"{broken} ")
    chunks = ask(shared.openai(), broken, tools=TOOLS, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks).endswith(f"{broken} ")


def test_what_is_ignored_is_said(shared):
    """Parameters without effect are taken, and a header names them."""
    raw = shared.openai().chat.completions.with_raw_response.create(
        model="base", messages=[{"role": "user", "content": "x"}], reasoning_effort="high", store=True
    )
    assert raw.headers["x-loraloop-ignored"] == "reasoning_effort, store"


def test_an_unknown_address_is_not_found(shared):
    """What the server does not offer is 404, not a question of keys."""
    with pytest.raises(openai.NotFoundError):
        shared.openai().embeddings.create(model="base", input="x")
