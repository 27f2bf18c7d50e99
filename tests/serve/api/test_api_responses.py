"""The responses API, as the official client uses it."""

from __future__ import annotations

import json

import openai
import pytest

from loraloop.errors import ModelError
from loraloop.records import Chunk

TOOLS = [{"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}]
FORMAT = {"type": "json_schema", "name": "a", "schema": {}}
CALL = '<tool_call>{"name":"look","arguments":{"at":1}}</tool_call>'


def create(house, text="one two", **more):
    """One response of the official client."""
    return house.openai().responses.create(**{"model": "ocr@7", "input": text} | more)


def test_a_response(shared):
    """An input gets a response with its text, its usage and the session that can be rated."""
    answer = create(shared, instructions="be brief")
    assert answer.output_text == "ocr@7 system: be brief user: one two "
    assert (answer.status, answer.model, answer.usage.output_tokens) == ("completed", "ocr@7", 7)
    assert shared.sessions.kept[-1].id == answer.loraloop["session"] == answer.id.removeprefix("resp_")
    cut = create(shared, max_output_tokens=2)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


def test_a_stream_is_what_the_response_is(shared):
    """The events of a stream are numbered, and their last response is the one that comes without a stream."""
    events = list(create(shared, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [events[0].type, events[-1].type] == ["response.created", "response.completed"]
    said = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert said == events[-1].response.output_text == create(shared).output_text
    with shared.openai().responses.stream(model="base", input="x") as stream:
        assert stream.get_final_response().output_text == "base user: x "


@pytest.mark.parametrize("streamed", [False, True])
def test_a_loop_of_function_calls(shared, streamed):
    """A call goes to the client and its result back, by the items themselves or by the response before."""
    asked = {"tools": TOOLS, "input": [{"role": "user", "content": [{"type": "input_text", "text": CALL}]}]}
    first = list(create(shared, **asked, stream=True))[-1].response if streamed else create(shared, **asked)
    message, call = first.output
    assert message.content[0].text.strip() == "ocr@7 offers look user:"
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "look", {"at": 1})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "a shelf"}
    whole = create(shared, [*asked["input"], *first.output, result], tools=TOOLS)
    kept = shared.sessions.kept[-1]
    dumped = create(shared, [*asked["input"], *(each.model_dump() for each in first.output), result], tools=TOOLS)
    assert dumped.output_text == whole.output_text
    after = create(shared, [result], tools=TOOLS, previous_response_id=first.id)
    assert after.output_text == whole.output_text
    assert after.previous_response_id == first.id
    for session in (kept, shared.sessions.kept[-1]):
        assert [turn["role"] for turn in session.prompt] == ["user", "assistant", "tool"]
        assert session.prompt[1]["tool_calls"][0]["id"] == call.call_id


def test_what_is_not_stored_is_not_known_later(shared):
    """A response with ``store=False``, and one that never was, cannot be gone on from."""
    for name in (create(shared, store=False).id, "resp_0"):
        with pytest.raises(openai.BadRequestError) as caught:
            create(shared, previous_response_id=name)
        assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")


def test_what_was_erased_or_given_to_another_user_is_not_known_later(build):
    """A response whose session was erased cannot be gone on from, nor one that another user of the key got."""
    house = build()
    first = create(house, user="ann")
    assert create(house, user="ann", previous_response_id=first.id).previous_response_id == first.id
    for user, erases in (("bob", False), ("ann", True)):
        if erases:
            house.sessions.kept.clear()
        with pytest.raises(openai.BadRequestError) as caught:
            create(house, user=user, previous_response_id=first.id)
        assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")


def test_an_instruction_is_of_one_response(shared):
    """Instructions are not carried to the next response, as the API has it; what was said is, and its session."""
    first = create(shared, "a", instructions="secret")
    second = create(shared, "b", previous_response_id=first.id)
    assert second.output_text == "ocr@7 user: a assistant: ocr@7 system: secret user: a user: b "
    kept = shared.sessions.kept[-1]
    assert [turn["role"] for turn in kept.prompt] == ["user", "assistant", "user"]
    assert kept.follows == first.loraloop["session"]


def test_probabilities_are_included(shared):
    """``include`` asks for the probabilities of the answer's tokens, with a stream too."""
    more = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    (token, *_) = create(shared, **more).output[0].content[0].logprobs
    assert (token.token, bytes(token.bytes), token.logprob) == ("ocr@7 ", b"ocr@7 ", -0.5)
    deltas = [event for event in create(shared, **more, stream=True) if event.type == "response.output_text.delta"]
    assert [each.token for each in deltas[0].logprobs] == ["ocr@7 "]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input[0]"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input"),
        ({"temperature": 3}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tool_calls": 1}, "max_tool_calls"),
        (
            {"extra_body": {"text": {"format": FORMAT | {"name": "a b"}}}},
            "text.format.name",
        ),
        (
            {"extra_body": {"text": {"format": FORMAT | {"schema": {"type": 5}}}}},
            "text.format",
        ),
        ({"tools": [TOOLS[0] | {"name": "a b"}]}, "tools[0].name"),
        ({"input": "word " * 3000}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
    ],
)
def test_what_is_not_supported_is_named(shared, more, param):
    """A tool of the API's own, an item or a parameter that would change the answer is an error with its name."""
    with pytest.raises(openai.BadRequestError) as caught:
        create(shared, **more)
    assert caught.value.param == param
    if caught.value.code != "context_length_exceeded":
        assert param.split("[")[0] in caught.value.message
    assert not any(name in caught.value.message for name in ("response_format", "messages", "json_schema.schema"))


def test_what_is_ignored_is_named(shared):
    """A header says by this API's names what changes nothing; a null is nothing."""
    more = {"reasoning": {"effort": "low"}, "text": {"verbosity": "low"}, "max_tool_calls": None}
    response = shared.post("/v1/responses", {"model": "base", "input": "x", **more})
    assert response.headers["x-loraloop-ignored"] == "reasoning.effort, text.verbosity"


def test_a_failure_within_a_stream_is_told(build):
    """A stream that fails after its begin ends with a failed response."""
    house = build()

    async def broken(request):
        yield Chunk(text="a ", tokens=1)
        raise ModelError("broken")

    house.backend.generate = broken
    last = list(create(house, "x", model="base", stream=True))[-1]
    assert (last.type, last.response.status) == ("response.failed", "failed")
