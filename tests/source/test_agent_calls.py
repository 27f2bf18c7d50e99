"""Made-up agent conversations: their truth, their worlds and their rule."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from loraloop.core.tool_calls import problem
from loraloop.dataset.builder import DatasetBuilder
from loraloop.source.agent_calls import AgentCalls
from loraloop.source.agent_calls.world import WORLDS


def collect(**changes):
    return AgentCalls(**{"conversations": 160, **changes}).collect(None).examples


def words(examples) -> set[str]:
    """The names in calls, which are what differs between worlds."""
    calls = [call for example in examples for message in example.messages for call in message.tool_calls]
    return {str(value) for call in calls for key, value in call.arguments.items() if key not in ("code", "flips")}


def test_the_same_seed_makes_the_same_conversations():
    """A seed names its conversations, and a longer collection begins with the shorter one."""
    assert collect(conversations=40) == collect()[:40]
    assert collect(seed=1)[:40] != collect()[:40]


@pytest.mark.parametrize("other", [1, 7, WORLDS - 1])
def test_worlds_share_no_name(other):
    """Panels, vaults and folders of one seed never occur in another seed's conversations."""
    ours, theirs = words(collect()), words(collect(seed=other))
    assert len(ours) > 80
    assert not ours & theirs


def test_every_call_fits_the_tools_that_are_offered():
    """Each conversation has 1 to 4 calls, all valid by its schemas, and offers several tools in several orders."""
    examples = collect()
    for example in examples:
        calls = [call for message in example.messages for call in message.tool_calls]
        assert 1 <= len(calls) <= 4
        assert [problem(call, example.tools) for call in calls] == [None] * len(calls)
        assert len(example.tools) == 3
    assert len({tuple(tool["function"]["name"] for tool in example.tools) for example in examples}) > 12
    assert {sum(len(m.tool_calls) for m in example.messages) for example in examples} == {1, 2, 3, 4}


def test_conversations_are_well_formed():
    """User and agent have 2 to 8 turns, a tool answers each call, and the agent has the last word."""
    for example in collect():
        said = [message for message in example.messages if message.role != "tool"]
        assert 2 <= len(said) <= 8
        assert said[0].role == "user"
        assert example.messages[-1].role == "assistant"
        assert example.messages[-1].text
        pairs = itertools.pairwise(example.messages)
        assert all(after.role == "tool" for before, after in pairs if before.tool_calls)
        results = sum(message.role == "tool" for message in example.messages)
        assert results == sum(len(message.tool_calls) for message in example.messages)


def test_what_the_agent_says_follows_from_its_past():
    """Every value in a call or an answer stands in the turns before it, but for counted flips, which the tool says."""
    for example in collect():
        for place, message in enumerate(example.messages):
            past = " ".join(each.text for each in example.messages[:place])
            assert all(str(value) in past for call in message.tool_calls for value in call.arguments.values())


def test_each_turn_is_judged_by_the_source():
    """The truth of every turn is right, and the truth of a turn of another conversation is wrong."""
    from loraloop.core.turns import turns
    from loraloop.model.tokenizer import byte_tokenizer

    source, tokenizer = AgentCalls(conversations=16), byte_tokenizer()
    rows, quarantined = DatasetBuilder(template="chatml").render(source.collect(None).examples, tokenizer)
    assert not quarantined
    split = [turns(row, tokenizer.eos_token) for row in rows]
    for asked, other in zip(split, split[8:] + split[:8], strict=True):
        assert all(source.correct(turn.example, turn.completion) for turn in asked)
        assert not source.correct(asked[0].example, other[0].completion) or asked[0].completion == other[0].completion
        assert not any(source.correct(turn.example, "") for turn in asked)
    assert source.correct(split[0][-1].example, split[0][-1].completion.upper().replace(" ", "  "))


def test_the_kinds_are_named_and_shared_equally():
    """Tasks take turns, so that each is a slice of equal size; a kind that is named twice or unknown is refused."""
    examples = collect(tasks=("ask", "recover"), conversations=10)
    assert [example.task for example in examples] == ["ask", "recover"] * 5
    for wrong in ({"tasks": ("ask", "ask")}, {"tasks": ("fly",)}, {"tools": 5}, {"conversations": 0}):
        with pytest.raises(ValidationError):
            AgentCalls(**wrong)
