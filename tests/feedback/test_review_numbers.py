"""Deciding on proposed corrections by their numbers."""

from __future__ import annotations

import pytest

from loraloop.errors import ConfigError
from loraloop.feedback import review_numbers
from loraloop.feedback.review_queue import Queue
from loraloop.records import Rating
from loraloop.workflows import proposals

COUNT = [{"type": "function", "function": {"name": "count", "parameters": {
    "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}}]  # fmt: skip
CALL = '<tool_call>{"name": "count", "arguments": {"n": %s}}</tool_call>'
PROBLEM = "call 1 (count): n: 'many' is not of type 'integer'"


@pytest.fixture
def waiting(file, make):
    """Two answers with a correction each; the second proposal breaks the schema of its tool."""
    for name, correction in (("s1", CALL % 1), ("s2", CALL % '"many"')):
        file.keep(make(name, prompt=[{"role": "user", "content": f"task of {name}"}], answer="no", tools=COUNT))
        file.rate(name, Rating(stars=2, correction=correction))
    return lambda: proposals.waiting(file, Queue())


def test_a_call_that_its_tool_does_not_take(file, waiting, capsys):
    """By its number it is refused with the reason, and nothing is decided; ``all`` names it, and it goes on waiting."""
    with pytest.raises(ConfigError, match=r"proposal 2 cannot be accepted: call 1 \(count\): n: 'many' is not of type"):
        review_numbers.decide(file, waiting(), [1, 2], [])
    assert len(file.proposals()) == 2
    review_numbers.decide(file, waiting(), "all", [])
    assert capsys.readouterr().out == f"proposal 2 is not accepted: {PROBLEM}\n1 accepted, 0 rejected, "
    assert [each.id for each in file.proposals()] == [2]
    review_numbers.decide(file, waiting(), [], [2])
    assert not file.proposals()


def test_all_takes_the_first_that_fits(file, waiting):
    """Where the first proposal of a session breaks a schema, ``accept=all`` takes the next one of that session."""
    file.propose([("s2", "sibling", CALL % 2)])
    review_numbers.decide(file, waiting(), "all", None)
    assert [file.session(each).correction for each in ("s1", "s2")] == [CALL % 1, CALL % 2]


def test_all_are_rejected(file, waiting, capsys):
    """``reject=all`` rejects every proposal, also several of one session."""
    file.propose([("s1", "sibling", CALL % 3), ("s1", "sibling", CALL % 4)])
    review_numbers.decide(file, waiting(), None, "all")
    assert capsys.readouterr().out == "0 accepted, 4 rejected, "
    assert not file.proposals()


def test_where_somebody_else_was_faster(file, waiting, capsys):
    """A decision that came too late is told and not counted, and the others are kept."""
    file.propose([("s2", "sibling", CALL % 2)])
    read = waiting()
    file.decide(1, "rejected", key="bob")
    review_numbers.decide(file, read, [1, 3], [2])
    seen = capsys.readouterr().out
    assert seen.startswith("proposal 1 was rejected by bob at ")
    assert seen.endswith("\n1 accepted, 1 rejected, ")
    assert (file.session("s1").correction, file.session("s2").correction) == (None, CALL % 2)
