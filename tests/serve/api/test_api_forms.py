"""Answers of a form that the client asks for, over HTTP from the engine, as the official client uses them."""

from __future__ import annotations

import copy
import json
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from loraloop.core.chat_templates import BUILT_IN
from loraloop.feedback.settings import Feedback
from loraloop.records import LoadedModel
from loraloop.serve.local import LocalBackend

LOOK = {"type": "object", "properties": {"at": {"type": "integer", "maximum": 9, "minimum": 0}}, "required": ["at"]}
TOOLS = [
    {"type": "function", "function": {"name": "look", "parameters": LOOK | {"additionalProperties": False}}},
    {"type": "function", "function": {"name": "wait"}},
]
WAIT = {"type": "function", "function": {"name": "wait"}}
MESSAGES = [{"role": "user", "content": "look"}]


class Place(BaseModel):
    """What is asked for."""

    shelf: Literal["left", "right"]
    boxes: bool


@pytest.fixture
def shown(base):
    """The base with a template that shows tools; it was never trained to call them."""
    tokenizer = copy.deepcopy(base.tokenizer)
    tokenizer.chat_template = BUILT_IN["chatml"]
    return LoadedModel(base.model, tokenizer, base.base)


@pytest.fixture
def house(build, shown):
    """A server of that base."""
    return build(backend=LocalBackend().attach(shown))


def ask(house: Any, **more: Any) -> Any:
    return house.openai().chat.completions.create(**{"model": "base", "messages": MESSAGES, "max_tokens": 400} | more)


def test_a_form_is_kept(house):
    """``parse`` gets its object, a schema in a stream and any object are JSON, and a cut answer is a part of it."""
    chat = house.openai().chat.completions
    parsed = chat.parse(model="base", messages=MESSAGES, response_format=Place, max_tokens=400).choices[0]
    assert parsed.finish_reason == "stop"
    assert isinstance(parsed.message.parsed, Place)
    form = {"type": "json_schema", "json_schema": {"name": "look", "schema": LOOK | {"additionalProperties": False}}}
    pieces = [chunk.choices[0].delta.content or "" for chunk in ask(house, response_format=form, stream=True)]
    assert list(json.loads("".join(pieces))) == ["at"]
    cut = ask(house, response_format=form, max_tokens=4).choices[0]
    assert (len(cut.message.content), cut.finish_reason) == (4, "length")
    assert cut.message.content.startswith("{")
    free = ask(house, response_format={"type": "json_object"}, seed=1).choices[0]
    assert free.message.content.startswith("{")


def test_a_call_is_forced(house):
    """``required`` gives a call of some tool and a named choice one of that tool, whole and streamed."""
    some = ask(house, tools=TOOLS, tool_choice="required", parallel_tool_calls=False).choices[0]
    (call,) = some.message.tool_calls
    assert (some.finish_reason, some.message.content) == ("tool_calls", None)
    assert list(json.loads(call.function.arguments)) == {"look": ["at"], "wait": []}[call.function.name]
    chunks = list(ask(house, tools=TOOLS, tool_choice=WAIT, stream=True))
    ((call,),) = [chunk.choices[0].delta.tool_calls for chunk in chunks if chunk.choices[0].delta.tool_calls]
    assert (call.function.name, call.function.arguments) == ("wait", "{}")
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    cut = ask(house, tools=TOOLS, tool_choice=WAIT, max_tokens=20).choices[0]
    assert (cut.message.tool_calls, cut.finish_reason) == (None, "length")
    assert cut.message.content.startswith("<tool_call>")


def test_a_loop_of_four_turns(build, shown, tmp_path):
    """Three turns call tools and the fourth answers: each is asked with all before it, and they are one conversation.

    The client sends its messages back as it has them: the object, its dump, and one put together of a stream's deltas.
    """
    store = Feedback(folder=tmp_path).open()
    house = build(backend=LocalBackend().attach(shown), sessions=store)
    chat = house.openai().chat.completions
    asked = {"model": "base", "tools": TOOLS, "max_tokens": 400, "parallel_tool_calls": False}
    messages: list[Any] = list(MESSAGES)

    def run(call: Any) -> dict[str, str]:
        return {"role": "tool", "tool_call_id": call["id"], "content": f"result {len(messages)}"}

    first = chat.create(messages=messages, tool_choice="required", **asked).choices[0].message
    messages += [first, run(first.tool_calls[0].model_dump())]
    second = chat.create(messages=messages, tool_choice=WAIT, **asked).choices[0].message.model_dump()
    messages += [second, run(second["tool_calls"][0])]
    chunks = [chunk.choices[0] for chunk in chat.create(messages=messages, tool_choice=WAIT, stream=True, **asked)]
    (delta,) = [delta for chunk in chunks for delta in chunk.delta.tool_calls or ()]
    third = {"role": "assistant", "content": None, "tool_calls": [delta.model_dump()]}
    messages += [third, run(third["tool_calls"][0])]
    last = chat.create(messages=messages, tool_choice="none", **asked | {"max_tokens": 4}).choices[0]
    assert (last.message.tool_calls, last.message.role) == (None, "assistant")
    turns = sorted(store.all(), key=lambda session: len(session.prompt))
    store.close()
    assert [len(session.prompt) for session in turns] == [1, 3, 5, 7]
    assert {session.conversation_id for session in turns} == {turns[0].id}
    kept = [turn for turn in turns[-1].prompt if turn["role"] != "user"]
    assert [turn["role"] for turn in kept] == ["assistant", "tool"] * 3
    ids = [call["id"] for turn in kept for call in turn.get("tool_calls", ())]
    assert ids == [turn["tool_call_id"] for turn in kept if turn["role"] == "tool"]
    assert len(set(ids)) == 3
    names = [turn["tool_calls"][0]["function"]["name"] for turn in kept if turn["role"] == "assistant"]
    assert names[1:] == ["wait", "wait"]
    assert [turn["content"] for turn in kept if turn["role"] == "tool"] == ["result 1", "result 3", "result 5"]


def test_what_cannot_be_held_to_is_named(house):
    """A schema that no grammar can say is an error that names it, and is no session of the version."""
    bad = {"type": "object", "not": {"required": ["a"]}}
    form = {"type": "json_schema", "json_schema": {"name": "bad", "schema": bad}}
    tools = [{"type": "function", "function": {"name": "look", "parameters": bad}}]
    for more, param in (
        ({"response_format": form}, "response_format"),
        ({"tools": tools, "tool_choice": "required"}, "tools"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(house, **more)
        assert (caught.value.param, caught.value.code) == (param, "invalid_value")
        assert '"not"' in str(caught.value)
    assert house.sessions.kept == []
