"""What a correction changes in an answer."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies

from loraloop.feedback.changes import LEVELS, changes, readable
from loraloop.records import Session

TOOLS = [{"type": "function", "function": {"name": name}} for name in ("book", "pay")]


def call(name="book", **arguments):
    """A call as templates write it."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def asked(answer, **known):
    """A session with two tools."""
    return Session(id="s1", prompt=[{"role": "user", "content": "?"}], tools=TOOLS, answer=answer, **known)


def marked(answer, correction):
    """The changes with what is removed in ``[-`` ``-]`` and what is added in ``{+`` ``+}``."""
    marks = {"same": "%s", "removed": "[-%s-]", "added": "{+%s+}"}
    return "".join(marks[each.kind] % each.text for each in changes(correction, asked(answer)))


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ({"days": 2, "kind": "bed"}, {"days": "three"}, 'days: [-2-]{+"three"+}\n[-  kind: "bed"-]'),
        ({"kind": "a big bed"}, {"n": -3, "kind": "a bed"}, 'kind: "a [-big -]bed"\n{+  n: -3+}'),
        ({"days": 25}, {"days": -25}, "days: [-25-]{+-25+}"),
        ({"days": 2}, {"days": "2"}, 'days: [-2-]{+"2"+}'),
        ({"at": [1, 2]}, {"at": [1, 3]}, "at: [-[1, 2]-]{+[1, 3]+}"),
        ({"in": {"a": 1, "b": "x"}}, {"in": {"a": "x"}}, 'in: {"a": [-1-]{+"x"+}, [-"b": "x"-]}'),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, "a: 1\n  b: 2"),
    ],
)
def test_arguments_are_compared_by_their_names(old, new, shown):
    """Each argument, and each member of an object in one, is compared with what had its name; texts word by word."""
    assert marked(call(**old), call(**new)) == f"calls book\n  {shown}"


@pytest.mark.parametrize(
    ("old", "new", "shown"),
    [
        ("I book.", f"I book it:\n{call(n=1)}", "I book[-.-]{+ it:+}\n{+calls book\n  n: 1+}"),
        (call(n=1), "No.", "{+No.+}\n[-calls book\n  n: 1-]"),
        (call(n=1) + call(n=2), call(n=2), "[-calls book\n  n: 1-]\ncalls book\n  n: 2"),
        (call(n=1), call("pay", n=1), "[-calls book\n  n: 1-]\n{+calls pay\n  n: 1+}"),
        (call(n=1) + call("pay"), call("pay") + call(n=1), "{+calls pay+}\ncalls book\n  n: 1\n[-calls pay-]"),
        (call(n=1) + call("pay"), call() + call("pay"), "calls book\n[-  n: 1-]\ncalls pay"),
    ],
)
def test_calls_are_compared_with_calls_of_their_tool(old, new, shown):
    """Equal calls stand once, the others beside one of the same tool between them, or are removed and added whole."""
    assert marked(old, new) == shown


CALLS = strategies.lists(
    strategies.tuples(
        strategies.sampled_from(("book", "pay")),
        strategies.dictionaries(strategies.sampled_from("ab"), strategies.sampled_from([1, "x y", "x", {"a": 1}])),
    ),
    max_size=4,
)


@given(CALLS, CALLS)
def test_no_line_is_lost(old, new):
    """Whatever the calls, without what was added each line of the answer is there, and likewise of the correction."""
    old, new = ("".join(call(name, **arguments) for name, arguments in each) for each in (old, new))
    session = asked(old)
    for text, other in ((old, "added"), (new, "removed")):
        left = "".join(each.text for each in changes(new, session) if each.kind != other)
        assert sorted(filter(None, left.split("\n"))) == sorted(filter(None, readable(text, session).split("\n")))


def test_what_lies_deep_is_compared_whole():
    """Objects without end in each other end no comparison."""
    old, new = 1, 2
    for _ in range(300):
        old, new = {"a": old}, {"a": new}
    (removed,) = (each.text for each in changes(call(n=new), asked(call(n=old))) if each.kind == "removed")
    assert removed.count("a") == 300 - LEVELS


def test_a_log_without_an_answer_is_compared_by_its_calls():
    """An imported session without an answer is compared as the calls that it recorded."""
    session = asked(None, iterations=({"tool_calls": [{"name": "read", "arguments": {"n": 1}}]},))
    assert [(each.kind, each.text) for each in changes("No.", session)] == [
        ("removed", 'read {"n": 1}'),
        ("added", "No."),
    ]


def test_a_correction_as_people_compare_it():
    """Text comes first, then a line for each call and each argument."""
    assert readable(f"Look:\n{call(n=1, at='x')}", asked("no")) == 'Look:\ncalls book\n  n: 1\n  at: "x"'
