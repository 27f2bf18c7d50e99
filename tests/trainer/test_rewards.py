"""What answers are worth."""

from dataclasses import replace

import pytest

from loraloop.records import Example, Message, Provenance, Row, ToolCall
from loraloop.trainer.rewards import constant, scorer

TOOL = {
    "type": "function",
    "function": {"name": "open", "parameters": {"type": "object", "properties": {"code": {"type": "integer"}}}},
}


def row(*calls: ToolCall) -> Row:
    said = (Message("user", ("open it",)), Message("assistant", ("four",) if not calls else (), calls))
    example = Example(messages=said, tools=(TOOL,), provenance=Provenance(source="test"))
    return Row("open it\n> ", "four", example)


@pytest.mark.parametrize(
    ("name", "answer", "worth"),
    [
        ("correct", "four", 1), ("correct", "five", 0),
        ("json", '{"a": 1}', 1), ("json", "four", 0),
        ("length", "4", 1), ("length", "four", 1), ("length", "four and 4", 5 / 11),
        ("similar", "four", 1), ("similar", " four ", 1), ("similar", "fou", 6 / 7), ("similar", "12", 0),
        ("tool_calls", "four", 1), ("tool_calls", '<tool_call>{"name": "open"}</tool_call>', 0),
    ],
)  # fmt: skip
def test_a_reward_is_between_0_and_1(name, answer, worth):
    """Each reward is 1 for what it asks for, 0 for what it does not, and weights multiply it."""
    score = scorer({name: 2.0}, lambda example, given: given == example.output)
    assert score(row(), answer) == pytest.approx(2 * worth)


@pytest.mark.parametrize(
    ("answer", "worth"),
    [
        ('<tool_call>{"name": "open", "arguments": {"code": 7}}</tool_call>', 1),
        ('<tool_call>{"name": "open", "arguments": {"code": 8}}</tool_call>', 0.5),
        ('<tool_call>{"name": "shut", "arguments": {"code": 7}}</tool_call>', 0.25),
        ("seven", 0),
    ],
)
def test_a_call_is_rewarded_step_by_step(answer, worth):
    """A call earns a quarter each for being valid, for its name, for its arguments and for all of it."""
    score = scorer({"tool_calls": 1.0}, lambda *_: False)
    assert score(row(ToolCall("open", {"code": 7})), answer) == worth


@pytest.mark.parametrize(
    ("answer", "worth"),
    [("14 heads, 18 tails", 1), ("15 heads, 18 tails", 0.75), ("14 tails, 18 heads", 0), ("14 heads", 0), ("", 0)],
)
def test_numbers_are_worth_more_the_nearer_they_are(answer, worth):
    """Each number of an answer earns 1 / (1 + its distance), where the words between are the expected ones."""
    asked = replace(row(), completion="14 heads, 18 tails")
    assert scorer({"numbers": 1.0}, lambda *_: False)(asked, answer) == worth


def test_rewards_add_up():
    """The worth of an answer is the weighted sum of its rewards."""
    score = scorer({"correct": 1.0, "json": 0.5}, lambda *_: True)
    assert score(row(), "[1]") == 1.5


@pytest.mark.parametrize(("rewards", "alike"), [([1, 1, 0, 0], True), ([1, 0, 0, 0], False), ([0, 0, 0, 1], False)])
def test_groups_are_compared_within(rewards, alike):
    """Groups that differ from each other alone teach nothing."""
    assert constant(rewards, 2) is alike
