"""A session as chat messages."""

from __future__ import annotations

import pytest

from loraloop.tracing import chat

BROKEN = '<tool_call>{"name": </tool_call>'


def test_a_call_is_a_call_of_the_message(make):
    """A tool call in an answer becomes one of the message, under the id that the client got, beside its text."""
    message = chat.answered(make())
    assert message["content"] == "One moment."
    call = {"name": "look_up", "arguments": '{"city": "Bern"}'}
    assert message["tool_calls"] == [{"id": "call_s1_0", "type": "function", "function": call}]
    assert chat.finish(make()) == "tool_calls"


@pytest.mark.parametrize(("answer", "tools"), [(BROKEN, [{}]), ("plain", [{}]), (BROKEN, None)])
def test_what_is_no_call_is_text(make, answer, tools):
    """An answer that holds no call, a broken one, or no tools were offered, is text as it is."""
    session = make(answer=answer, tools=tools)
    assert chat.answered(session) == {"role": "assistant", "content": answer}
    assert chat.finish(session) == "stop"


def test_a_text_is_a_message_of_the_user(make):
    """A prompt that was to be completed is asked by the user, and an answer that failed says why it ended."""
    session = make(prompt="once", answer=None, status="error")
    assert chat.asked(session) == [{"role": "user", "content": "once"}]
    assert chat.answered(session)["content"] == ""
    assert chat.finish(session) == "error"


def test_messages_in_parts(make):
    """Text, calls and results are parts of the types that OpenTelemetry's conventions name."""
    assert chat.in_parts(chat.answered(make())) == {
        "role": "assistant",
        "parts": [
            {"type": "text", "content": "One moment."},
            {"type": "tool_call", "id": "call_s1_0", "name": "look_up", "arguments": {"city": "Bern"}},
        ],
    }
    result = {"role": "tool", "tool_call_id": "call_s1_0", "content": "3 degrees"}
    (part,) = chat.in_parts(result)["parts"]
    assert part == {"type": "tool_call_response", "id": "call_s1_0", "response": "3 degrees"}
    unread = {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": "{"}}]}
    assert chat.in_parts(unread)["parts"][0]["arguments"] == "{"
