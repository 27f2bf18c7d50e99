"""Turns that do not fit together."""

from collections import Counter

import pytest

from loraloop.records import Message, ToolCall
from loraloop.source.forms.repair import mend

USER = Message("user", ("q",))
SAID = Message("assistant", ("a",))
EMPTY = Message("assistant", (" ",))
CALL = Message("assistant", (), (ToolCall("look", {}, "c1"),))
TWO = Message("assistant", (), (ToolCall("look", {}, "c1"), ToolCall("look", {}, "c2")))


def result(of=""):
    return Message("tool", ("lit",), tool_call_id=of)


def mended(*messages):
    repaired = Counter()
    return mend(messages, repaired, last_is_judged=False), repaired


REPAIRED = {
    "two users": ([USER, USER, SAID], [Message("user", ("q\n\nq",)), SAID]),
    "a question at the end": ([USER, SAID, USER], [USER, SAID]),
    "an empty answer at the end": ([USER, SAID, USER, EMPTY], [USER, SAID]),
    "a result at the end": ([USER, CALL, result("c1")], [USER, CALL]),
    "an empty system": ([Message("system", ("",)), USER, SAID], [USER, SAID]),
    "words and then a call": (
        [USER, SAID, CALL, result("c1"), SAID],
        [USER, Message("assistant", ("a",), CALL.tool_calls), result("c1"), SAID],
    ),
    "the id of the one call": ([USER, CALL, result("x"), SAID], [USER, CALL, result("c1"), SAID]),
}


@pytest.mark.parametrize("name", REPAIRED)
def test_what_is_certain_is_put_right_and_counted(name):
    """Each certain repair gives the turns that were meant and is counted once."""
    messages, meant = REPAIRED[name]
    made, repaired = mended(*messages)
    assert (list(made), sum(repaired.values())) == (meant, 1 if name != "an empty answer at the end" else 2)


@pytest.mark.parametrize(
    "messages",
    [[USER, SAID], [USER, TWO, result("c2"), result("c1"), SAID], [USER, TWO, result(), result(), SAID], [SAID]],
)
def test_turns_in_order_stay_as_they_are(messages):
    """A conversation whose turns fit together is neither changed nor counted."""
    assert mended(*messages) == (tuple(messages), Counter())


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([USER], "no turn of the assistant"),
        ([USER, EMPTY], "no turn of the assistant says anything"),
        ([USER, Message("assistant", ("a",), learned=False)], "says anything that is learned"),
        ([USER, EMPTY, USER, SAID], "message 2: the answer is empty"),
        ([Message("user", ("",)), SAID], "message 1: the user says nothing"),
        ([USER, SAID, SAID], "message 3: an answer follows an answer"),
        ([USER, result("c1"), SAID], "message 2: a tool result without its call"),
        ([USER, TWO, result("x"), SAID], "none has the id 'x'"),
        ([USER, CALL, result("c1"), result("c1"), SAID], "message 4: a tool result without its call"),
        ([USER, Message("assistant", (), CALL.tool_calls * 2), SAID], "message 2: two calls have one id"),
    ],
)
def test_what_is_not_certain_is_refused_with_the_message(messages, reason):
    """A conversation that may be meant in several ways is refused, and the message says where and why."""
    with pytest.raises(ValueError, match=reason):
        mended(*messages)


def test_an_empty_answer_that_was_judged_is_not_left_out():
    """Where a label or a worse answer speaks of the last turn, the turn before it does not take its place."""
    with pytest.raises(ValueError, match="which is judged, is empty"):
        mend([USER, SAID, USER, EMPTY], Counter(), last_is_judged=True)
