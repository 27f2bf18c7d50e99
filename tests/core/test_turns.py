"""A conversation's learned turns as rows of their own."""

from __future__ import annotations

from loraloop.core import prompts
from loraloop.core.rendering import Renderer
from loraloop.core.turns import turns
from loraloop.model.tokenizer import byte_tokenizer
from loraloop.records import Example, Message, Provenance, Row, ToolCall

TOKENIZER = byte_tokenizer()
END = str(TOKENIZER.eos_token)
SAID = (
    Message("system", ("Be short.",)),
    Message("user", ("Open 4.",)),
    Message("assistant", (), (ToolCall("open", {"vault": 4}),)),
    Message("tool", ("open",)),
    Message("assistant", ("Not this one.",), learned=False),
    Message("user", ("And 5?",)),
    Message("assistant", ("5 is shut.",)),
)
TOOLS = ({"type": "function", "function": {"name": "open", "parameters": {"type": "object", "properties": {}}}},)


def row(template: str) -> Row:
    example = Example(messages=SAID, tools=TOOLS, task="t", provenance=Provenance(source="test"))
    (made,) = Renderer(template, TOKENIZER).rows(example)
    return made


def test_each_learned_turn_is_asked_as_a_server_would_ask_it():
    """A turn's prompt is its true past as rendered, its completion has no end token, and its example ends there."""
    for template in ("chatml", "plain"):
        split = turns(row(template), END)
        assert [each.example.messages for each in split] == [SAID[:3], SAID]
        for each in split:
            assert each.prompt == prompts.ask(template, TOKENIZER, each.example.past, TOOLS)
            assert not each.earlier
        assert split[0].completion == '<tool_call>{"name": "open", "arguments": {"vault": 4}}</tool_call>'
        assert split[1].completion == "5 is shut."


def test_turns_of_one_conversation_share_an_origin():
    """The rows of a conversation can be told to be one's, and those of another conversation are not."""
    first, second = turns(row("chatml"), END)
    assert first.example.origin == second.example.origin != ""
    assert first.example.task == "t"


def test_a_row_of_one_turn_stays_as_it_is():
    """What has one learned turn is returned itself."""
    example = Example.one_turn(input="a", output="b", provenance=Provenance(source="test"))
    alone = Row("a", "b", example)
    assert turns(alone, END)[0] is alone
