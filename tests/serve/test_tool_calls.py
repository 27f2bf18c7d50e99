"""Tool calls in the text of an answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core.chat_templates import BUILT_IN
from loraloop.core.rendering import Renderer
from loraloop.model.tokenizer import byte_tokenizer
from loraloop.records import Example, Message, Provenance, ToolCall
from loraloop.serve.tool_calls import OPENS, Held, split

TEXT = st.text(st.characters(codec="utf8", exclude_characters="<>"), max_size=12)


@pytest.mark.parametrize("template", BUILT_IN)
@given(text=TEXT, arguments=st.lists(st.dictionaries(TEXT, TEXT | st.integers()), min_size=1, max_size=2))
def test_a_call_that_was_trained_is_found_in_the_answer(template, text, arguments):
    """What a model learns to say of text and calls in every built-in template is read back as that text and calls."""
    calls = tuple(ToolCall("look", each) for each in arguments)
    said = (Message("user", ("a",)), Message("assistant", (text,), calls))
    (row,) = Renderer(template, byte_tokenizer()).rows(Example(messages=said, provenance=Provenance(source="t")))
    found, made = split(row.completion, "s")
    assert (found or "") == text.strip()
    assert [json.loads(call["function"]["arguments"]) for call in made] == arguments
    assert [call["id"] for call in made] == [f"call_s_{place}" for place in range(len(made))]


@pytest.mark.parametrize(
    "text",
    [
        "none",
        '{"name": "f", "arguments": {}}',
        f"{OPENS}{{",
        f'{OPENS}{{"name": 1}}',
        f'{OPENS}{{"name": "f", "arguments": [1]}}',
    ],
)
def test_what_is_no_call_stays_text(text):
    """An answer whose call is no JSON, or lacks a name or arguments, is text as it is."""
    assert split(text, "s") == (text, [])


def test_one_call_where_only_one_is_allowed():
    """With ``parallel_tool_calls=false`` the first call is the only one."""
    text = f'{OPENS}{{"name": "a"}}</tool_call>{OPENS}{{"name": "b"}}</tool_call>'
    assert [call["function"]["name"] for call in split(text, "s", parallel=False)[1]] == ["a"]


@given(pieces=st.lists(TEXT | st.sampled_from(["<", "<tool", "_call>", OPENS, "</tool_call>"]), max_size=8))
def test_a_stream_shows_nothing_of_a_call(pieces):
    """Whatever the pieces, what was shown and what is held are the text, and nothing shown begins a call."""
    held = Held()
    shown = "".join(held.take(piece) for piece in pieces)
    assert shown + held.text == "".join(pieces)
    assert OPENS not in shown
    assert not held.text or OPENS.startswith(held.text) or held.text.startswith(OPENS)
