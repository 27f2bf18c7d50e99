"""Bodies: what is accepted, what is refused, and by which name."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from loraloop.serve import errors
from loraloop.serve.schema import ChatRequest, CompletionRequest, NeutralChat, NeutralCompletion

ANY = st.characters()
"""Lone surrogates too, which JSON can write."""
NEUTRAL = {**NeutralChat.model_fields, **NeutralCompletion.model_fields}
CHAT: dict[str, Any] = {"model": "base", "messages": [{"role": "user", "content": "x"}]}
TEXT: dict[str, Any] = {"model": "base", "prompt": "x"}
CALL: dict[str, Any] = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
OFF: dict[str, Any] = {
    "functions": [], "function_call": "auto", "modalities": ["text"], "audio": None, "prediction": None,
    "moderation": None, "web_search_options": None, "best_of": 1, "suffix": "",
}  # fmt: skip
ON: dict[str, Any] = {
    "functions": [{"name": "f"}], "function_call": {"name": "f"},
    "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"}, "moderation": {"model": "m"}, "web_search_options": {},
    "best_of": 3, "suffix": "end",
}  # fmt: skip


def refused(body: dict[str, Any], form: type[Any] = ChatRequest) -> errors.ApiError:
    """The error that a body gets."""
    with pytest.raises(ValidationError) as caught:
        form(**body)
    problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in caught.value.errors()]
    neutral = NeutralCompletion if form is CompletionRequest else NeutralChat
    return errors.invalid(problems, neutral.model_fields)


def form_of(name: str) -> tuple[type[Any], dict[str, Any]]:
    return (CompletionRequest, TEXT) if name in NeutralCompletion.model_fields else (ChatRequest, CHAT)


def test_the_tables_are_complete():
    """Every parameter with a neutral value is in the tables of these tests."""
    assert OFF.keys() == ON.keys() == NEUTRAL.keys()


@pytest.mark.parametrize("name", sorted(OFF))
def test_a_neutral_value_is_accepted(name):
    """A parameter that is not supported may be sent with the value that changes nothing, and as null."""
    form, body = form_of(name)
    for value in (OFF[name], None):
        form(**body, **{name: value})


@pytest.mark.parametrize("name", sorted(ON))
def test_another_value_is_refused_by_name(name):
    """A parameter that would change the answer and is not supported is an error that names it."""
    form, body = form_of(name)
    error = refused({**body, name: ON[name]}, form)
    assert error.status == 400
    assert error.param.partition(".")[0].partition("[")[0] == name
    assert error.code == "unsupported_parameter"
    assert name in str(error)


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages[0]", "invalid_value"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id", "missing_required_parameter"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "c"}]}, "messages", "invalid_value"),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0]", "invalid_value"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [CALL | {"function": {"name": "f", "arguments": "{"}}]}]},
            "messages[0].tool_calls[0].function.arguments",
            "invalid_value",
        ),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "invalid_value"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}] * 129}, "tools", "invalid_value"),
        ({"tools": [{"type": "web"}]}, "tools[0].type", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "invalid_value"),
        ({"messages": [{"role": "user", "content": "x", "nam": "n"}]}, "messages[0].nam", "unknown_parameter"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
            "missing_required_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": 1}}]}]},
            "messages[0].content[0].image_url.url",
            "invalid_value",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "file"}]}]}, "messages[0].content[0]", "invalid_value"),
        (
            {"messages": [{"role": "system", "content": [{"type": "image_url", "image_url": {"url": "data:"}}]}]},
            "messages[0].content",
            "invalid_value",
        ),
        ({"temperature": 2.1}, "temperature", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"presence_penalty": 2.5}, "presence_penalty", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias.5", "invalid_value"),
        ({"temperature": "1"}, "temperature", "invalid_value"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": True}, "max_tokens", "invalid_value"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"stop": ["a", ""]}, "stop[1]", "invalid_value"),
        ({"seed": 2**63}, "seed", "invalid_value"),
        ({"metadata": {"retries": "-1"}}, "metadata.retries", "invalid_value"),
        ({"metadata": {"team": 7}}, "metadata.team", "invalid_value"),
        ({"metadata": {f"k{n}": "v" for n in range(17)}}, "metadata", "invalid_value"),
        ({"metadata": {"conversation": ""}}, "metadata.conversation", "invalid_value"),
        ({"metadata": {"conversation": 7}}, "metadata.conversation", "invalid_value"),
        ({"metadata": {"conversation": "c" * 257}}, "metadata.conversation", "invalid_value"),
        ({"metadata": {"conversation": "a\nb"}}, "metadata.conversation", "invalid_value"),
        ({"user": "u" * 257}, "user", "invalid_value"),
        ({"user": "a\0b"}, "user", "invalid_value"),
        ({"user": "\ud800"}, "user", "invalid_value"),
        ({"safety_identifier": ""}, "safety_identifier", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        ({"top_logprobs": 2}, None, "invalid_value"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, None, "invalid_value"),
        ({"model": None}, "model", "invalid_value"),
    ],
)  # fmt: skip
def test_the_parameter_at_fault_is_named(change, param, code):
    """An error says with OpenAI's path which parameter is wrong, and never how pydantic got there."""
    error = refused(CHAT | change)
    assert (error.param, error.code) == (param, code)
    assert "constrained" not in str(error)
    assert "tagged" not in str(error)


@pytest.mark.parametrize(("form", "body"), [(ChatRequest, CHAT), (CompletionRequest, TEXT)])
def test_who_asks_and_in_which_conversation(form, body):
    """Both APIs take a conversation, and who asks by either of two names; without them a request says nothing."""
    told = form(**body, user="u-1", safety_identifier="s-1", metadata={"conversation": "c" * 256})
    assert (told.client, told.conversation) == ("u-1", "c" * 256)
    assert form(**body, safety_identifier="s-1").client == "s-1"
    silent = form(**body, user=None, metadata={"retries": "1"})
    assert (silent.client, silent.conversation) == (None, None)


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_a_prompt_in_each_of_its_forms(prompt, prompts):
    """A text, texts, tokens and lists of tokens are one prompt or several."""
    assert CompletionRequest(model="base", prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    "change", [{"prompt": ["x"] * 65, "n": 2}, {"max_tokens": 0}, {"prompt": []}, {"prompt": [[]]}]
)
def test_prompts_that_are_refused(change):
    """Too many choices, no token at all without an echo, and empty lists are errors."""
    assert refused(TEXT | change, CompletionRequest).status == 400


@pytest.mark.parametrize(("stop", "said"), [(["a"] * 5, "at most 4 items"), ("", "at least 1 characters")])
def test_the_rule_that_a_value_breaks_is_told(stop, said):
    """Of the forms that a parameter may have, the error tells the rule of the one that was sent."""
    assert said in str(refused(CHAT | {"stop": stop}))


def test_every_problem_is_told_at_once():
    """An error names every parameter that is wrong, the first one as its parameter."""
    error = refused(CHAT | {"temperature": 9, "n": 0, "nonsense": 1})
    assert all(name in str(error) for name in ("temperature", "n: ", "nonsense"))


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*OFF, "model", "messages", "stop", "seed", "metadata", "stream", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(ANY, max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(ANY, max_size=5), inner, max_size=3),
            max_leaves=8,
        ),
    )
)
def test_any_body_is_taken_or_refused_in_shape(body):
    """Whatever JSON a client sends is a request or an error in OpenAI's shape with a status of 400."""
    try:
        ChatRequest(**CHAT | body)
    except ValidationError:
        error = refused(CHAT | body)
        assert error.status == 400
        assert set(orjson.loads(orjson.dumps(error.body()))["error"]) == {"message", "type", "param", "code"}


def test_a_lone_surrogate_is_refused():
    """Half a character, which JSON can write and UTF-8 cannot, never reaches the model."""
    assert refused(CHAT | {"messages": [{"role": "user", "content": "\ud800"}]}).param == "messages[0].content"


def test_what_clients_send_back_of_an_answer_is_accepted():
    """An answer's message in every form that its client writes, names, cache marks and tool results are taken."""
    whole = {
        "content": None,
        "refusal": None,
        "role": "assistant",
        "annotations": None,
        "audio": None,
        "function_call": None,
    }
    messages = [
        {"role": "system", "content": "x", "name": "rules"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}],
            "name": "ann",
        },
        whole | {"tool_calls": [CALL | {"index": 0, "function": CALL["function"] | {"parsed_arguments": None}}]},
        {"role": "tool", "content": "y", "tool_call_id": "c"},
        whole | {"content": "z", "tool_calls": None, "annotations": [], "parsed": None},
    ]
    body = ChatRequest(model="base", messages=messages, metadata={"team": "a", "conversation": "c"}, store=True)
    assert (body.conversation, body.ignored) == ("c", ("store",))


def test_tools_are_offered_unless_the_client_wants_none():
    """The model is told of the tools as they were sent, and of none with ``tool_choice=none``."""
    tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}
    assert ChatRequest(**CHAT, tools=[tool]).offered == [tool]
    assert ChatRequest(**CHAT, tools=[tool], tool_choice="none").offered == []
    strict = {"type": "function", "function": tool["function"] | {"strict": True}}
    assert ChatRequest(**CHAT, tools=[strict]).offered == [tool]
