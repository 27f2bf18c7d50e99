"""A correction as a form edits it."""

from __future__ import annotations

import pytest

from loraloop.core import tool_calls
from loraloop.feedback import edit
from loraloop.records import Session

TOOLS = [
    {"type": "function", "function": {"name": "read", "parameters": {
        "type": "object", "properties": {"region": {"type": "string"}, "scale": {"type": "integer"}},
        "required": ["region"]}}},
    {"type": "function", "function": {"name": "open", "parameters": {
        "type": "object", "properties": {"door": {"type": "integer"}}, "required": ["door"]}}},
]  # fmt: skip
SESSION = Session(id="s1", prompt=[{"role": "user", "content": "code?"}], tools=TOOLS, answer="I do not know.")
CALL = 'Look:\n<tool_call>{"name": "read", "arguments": {"region": "upper"}}</tool_call>'
FORM = {"text": ["Look:"], "call.0.before": ["read"], "call.0.tool": ["read"], "call.0.arg.region": ["upper"],
        "call.0.arg.scale": [""]}  # fmt: skip


def test_a_correction_survives_the_form():
    """What the form shows and sends back unchanged is the proposed correction, and counts as not changed."""
    before, made = edit.proposed(CALL, SESSION), edit.sent(FORM, SESSION)
    assert (made.whole, made.problem) == (CALL, "")
    assert made.written == before.written


def test_calls_are_edited_left_out_and_added():
    """A changed argument, a call that is left out and another one give what a template would write."""
    changed = edit.sent(FORM | {"call.0.arg.scale": ["2"]}, SESSION)
    assert tool_calls.read(changed.whole)[0].arguments == {"region": "upper", "scale": 2}
    assert edit.sent(FORM | {"call.0.out": ["1"]}, SESSION).whole == "Look:"
    added = edit.sent(FORM, SESSION, add=True)
    assert [each.name for each in added.calls] == ["read", "read"]
    assert added.moved
    assert "look at them" in added.problem


def test_an_edit_elsewhere_leaves_other_arguments_as_they_are():
    """A null and an argument that is absent outlive a changed text; a call of another tool takes nothing along."""
    text = '<tool_call>{"name": "read", "arguments": {"region": null}}</tool_call>'
    (call,) = edit.proposed(text, SESSION).calls
    form = FORM | {"call.0.was": [call.carried], "call.0.arg.region": [call.fields[0].value]}
    assert edit.sent(form, SESSION).calls[0].values == {"region": None}
    assert "not of type 'string'" in edit.sent(form, SESSION).calls[0].fields[0].problem
    assert edit.sent(form | {"call.0.was": ["[1"]}, SESSION).calls[0].values == {"region": "null"}, "as if it were new"
    assert edit.sent(form | {"call.0.tool": ["open"]}, SESSION).calls[0].carried == ""


def test_another_tool_shows_its_own_fields_first():
    """A call that gets another tool is not kept before its fields were seen; nothing that was written is lost."""
    made = edit.sent(FORM | {"call.0.tool": ["open"]}, SESSION)
    assert made.moved
    assert [(each.name, each.value) for each in made.calls[0].fields] == [("door", ""), ("region", "upper")]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"text": [" "]}, "empty"),
        ({"text": ["x" * 20_000]}, "longer than"),
        (FORM | {"call.0.tool": ["fly"], "call.0.before": ["fly"]}, "beside the fields"),
        (FORM | {"call.0.arg.region": ["</tool_call>"]}, "mark calls"),
        (FORM | {"text": ["<tool_call>"]}, "mark calls"),
        ({"text": ['<tool_call>{"name": "read"']}, "mark calls"),
    ],
)
def test_what_is_no_correction(fields, words):
    """An empty or endless text, an unknown tool and text that would be read as a call are said, not kept."""
    assert words in edit.sent(fields, SESSION).problem


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CALL.replace('"upper"', "7"), "call 1 (read): region: 7 is not of type 'string'"),
        (CALL.replace('"region": "upper"', ""), "call 1 (read): 'region' is a required property"),
        (CALL.replace('"read"', '"fly"'), "call 1 (fly): No tool is called fly."),
        (CALL.replace("}}", "}"), "mark calls"),
        (CALL, ""),
        ("long " * 4_000, ""),
    ],
)
def test_a_proposal_is_held_to_the_schemas(text, words):
    """A proposed call that its tool does not take, or that is none, is said in words; the length of a text is not."""
    made = edit.proposed(text, SESSION)
    assert words in made.misfit
    assert bool(made.misfit) == bool(words)
    assert bool(made.problem) or not words, "what cannot be accepted cannot be saved"


def test_tags_are_text_where_no_tool_was_offered():
    """A correction of a session without tools may hold tags, which its client gets as text."""
    plain = Session(id="s2", prompt="code?", answer="I do not know.")
    assert (edit.proposed(CALL, plain).misfit, edit.sent({"text": [CALL]}, plain).problem) == ("", "")


def test_what_stands_in_the_form_is_kept_as_written():
    """Also what is no value, and what no tool takes, is in the text that is shown again."""
    assert edit.as_written(FORM | {"call.0.arg.scale": ["big"]}) == "Look:\ncalls read\n  region: upper\n  scale: big"
