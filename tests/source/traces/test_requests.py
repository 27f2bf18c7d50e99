"""OpenAI requests with their responses, in every way that they are logged."""

import json

import pytest

from loraloop.source.traces import reading

ASK = {"role": "user", "content": "q"}
SAY = {"role": "assistant", "content": "a"}
CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "x"}'}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "lit"}


def request(*messages, **more):
    return {"model": "m", "messages": list(messages), **more}


def response(message=SAY, **more):
    return {"id": "chatcmpl-1", "choices": [{"message": message}], **more}


def read(*rows):
    """What the rows make, and the reasons of what was set aside."""
    aside = []
    found = reading.conversations([(f"log:{number}", row) for number, row in enumerate(rows, 1)], aside)
    return found, [(one.item, one.reason) for one in aside]


def said(trace):
    return [(m.role, m.text or [(c.name, dict(c.arguments)) for c in m.tool_calls]) for m in trace.messages]


CHUNKS = [
    {"id": "chatcmpl-1", "choices": [{"delta": {"role": "assistant", "content": piece}}]} for piece in ("a", "b", None)
]
PIECES = [
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "id": "c1", "function": {"name": "look", "arguments": ""}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '{"at": '}}]}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"arguments": '"x"}'}}]}}]},
]
ITEMS = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"at": "x"}'}
LOOKED = ("assistant", [("look", {"at": "x"})])


@pytest.mark.parametrize(
    ("asked", "answered", "expected"),
    [
        (request(ASK), response(), [("user", "q"), ("assistant", "a")]),
        (json.dumps(request(ASK)), json.dumps(response()), [("user", "q"), ("assistant", "a")]),
        (request(ASK), {"status_code": 200, "body": response()}, [("user", "q"), ("assistant", "a")]),
        (request(ASK), CHUNKS, [("user", "q"), ("assistant", "ab")]),
        (
            request(ASK),
            "".join(f"data: {json.dumps(each)}\n\n" for each in CHUNKS) + "data: [DONE]\n\n",
            [("user", "q"), ("assistant", "ab")],
        ),
        (request(ASK), PIECES, [("user", "q"), LOOKED]),
        (request(ASK), response(CALLING), [("user", "q"), LOOKED]),
        ({"prompt": "Once"}, {"choices": [{"text": " upon"}]}, [("user", "Once"), ("assistant", " upon")]),
        (
            {
                "instructions": "s",
                "input": [ASK, ITEMS, {"type": "function_call_output", "call_id": "c1", "output": "lit"}],
            },
            {"output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]},
            [("system", "s"), ("user", "q"), LOOKED, ("tool", "lit"), ("assistant", "a")],
        ),
    ],
)
def test_a_call_is_read_in_every_form_that_its_bodies_have(asked, answered, expected):
    """Bodies as objects, as JSON, in an envelope, streamed, of completions and of responses make one conversation."""
    found, aside = read({"request": asked, "response": answered})
    assert (aside, [said(trace) for trace in found.traces]) == ([], [expected])


def test_the_five_fields_say_when_who_and_what_for():
    """timestamp, client_id and workload_id become time, client and role; usage and model are the response's."""
    row = {
        "timestamp": 1790000000, "workload_id": "sums", "client_id": "c7", "request": request(ASK, tools=[CALL]),
        "response": response(model="m-1", usage={"prompt_tokens": 3, "completion_tokens": 2}),
    }  # fmt: skip
    row["request"]["tools"] = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    found, _ = read(row)
    (trace,) = found.traces
    assert (trace.id, trace.time, trace.client, trace.role) == ("1", "2026-09-21T14:13:20.000+00:00", "c7", "sums")
    assert (trace.model, trace.prompt_tokens, trace.completion_tokens) == ("m-1", 3, 2)
    assert [tool["function"]["name"] for tool in trace.tools] == ["look"]
    assert found.rows == {"OpenAI requests with responses and workload": 1}


def test_calls_that_repeat_the_past_are_one_conversation():
    """Of calls that repeat the past the longest is kept; one with the same id is counted, another client's stays."""
    calls = [
        {"request": request(ASK), "response": response(id="1")},
        {"request": request(ASK, SAY, ASK), "response": response(CALLING, id="2")},
        {"request": request(ASK, SAY, ASK, CALLING, RESULT), "response": response(id="3")},
        {"request": request(ASK, SAY, ASK, CALLING, RESULT), "response": response(id="3")},
        {"request": request(ASK), "response": response(id="4"), "client_id": "other"},
    ]
    found, aside = read(*calls)
    assert [trace.id for trace in found.traces] == ["3", "4"]
    assert (aside, found.counts["joined"], found.counts["twice"], found.counts["calls"]) == ([], 2, 1, 5)


def test_the_halves_of_a_batch_are_joined_by_custom_id():
    """A batch's rows of requests and of responses make calls; a half without the other is set aside by name."""
    found, aside = read(
        {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": request(ASK)},
        {"custom_id": "b", "body": request(ASK)},
        {"custom_id": "a", "response": {"status_code": 200, "body": response(id="x")}, "error": None},
        {"custom_id": "c", "response": {"status_code": 200, "body": response()}},
        {"custom_id": "d", "response": None, "error": {"message": "expired"}},
    )
    assert [trace.id for trace in found.traces] == ["x"]
    assert aside == [
        ("log:5", "the call ended with an error: {'message': 'expired'}"),
        ("log:2", "no row has the response to its custom_id"),
        ("log:4", "no row has the request to its custom_id"),
    ]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"request": request(ASK), "response": {"error": {"message": "rate limit"}}},
            "the response is an error: rate limit",
        ),
        ({"request": request(ASK)}, "it has no response"),
        ({"request": request(), "response": response()}, "the request has no messages, no prompt and no input"),
        ({"request": request(ASK), "response": {"choices": []}}, "the response has no choices and no output"),
        (
            {"request": request(ASK), "response": response({"role": "assistant", "content": ""})},
            "the last answer, which is judged, is empty",
        ),
        ({"request": request(ASK, RESULT), "response": response()}, "message 2: a tool result without its call"),
        ({"hello": 1}, "no form of logs that is known: it has hello"),
    ],
)
def test_what_is_no_call_is_set_aside_with_its_reason(row, reason):
    """A row without a question, an answer or a known form is set aside, and the reason says which."""
    found, aside = read(row)
    assert found.traces == []
    assert [(place, said[: len(reason)]) for place, said in aside] == [("log:1", reason)]
