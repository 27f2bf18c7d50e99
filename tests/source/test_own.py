"""What a source of one's own may yield."""

from __future__ import annotations

import pytest

from loraloop.errors import DataError
from loraloop.records import Collection, Example, Provenance
from loraloop.source import own, screening

GOOD = {"input": 3, "output": "c", "instruction": "i", "task": "t"}
TURNS = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}], "task": "talk"}


class Source:
    """Yields what it is given."""

    def __init__(self, *rows):
        self.rows = rows

    def collect(self, ocr):
        """The rows, one by one."""
        yield from self.rows


def test_dictionaries_become_examples_in_the_one_step_of_every_source():
    """A question, a conversation and a ready example are collected in their order, with where they came from."""
    ready = Example.one_turn(input="x", output="y", provenance=Provenance(source="mine"))
    found = screening.collect(Source(GOOD, TURNS, ready), None)
    assert found.quarantined == ()
    first, talk, last = found.examples
    assert (first.instruction, first.input, first.output, first.task) == ("i", "3", "c", "t")
    assert first.provenance == Provenance(source="Source", index=0)
    assert (talk.input, talk.output, talk.task) == ("q", "a", "talk")
    assert last is ready


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"input": "a", "ouput": "b"}, "has the key 'ouput' (did you mean output?); an example has input, output, "),
        ({"mesages": []}, "has the key 'mesages' (did you mean messages?); an example has "),
        ({"input": "a"}, "the output is empty"),
        ({"input": None, "output": "b"}, "nothing to ask"),
        ({"messages": [{"role": "user", "content": "q"}]}, ""),
        ("a b", "is a value of the type str: a source yields dictionaries with input and output"),
        (None, "is nothing: a source yields dictionaries"),
    ],
)
def test_what_is_no_example_is_set_aside(row, reason):
    """A dictionary that cannot be learned from is named by its place and why, and the others are kept."""
    found = own.collection([GOOD, row], "Mine")
    assert len(found.examples) == 1
    (aside,) = found.quarantined
    assert aside.item == "Mine example 1"
    assert aside.reason.startswith(reason)
    assert aside.reason


def test_nothing_usable_is_an_error_with_each_reason_once():
    """Where every dictionary is wrong the error counts the reasons instead of repeating them."""
    with pytest.raises(DataError, match=r"2 set aside \(2 x has the key 'inptu' \(did you mean input\?\)"):
        own.collection([{"inptu": "a"}] * 2, "Mine")


@pytest.mark.parametrize(
    ("found", "kind"), [(None, "nothing"), (GOOD, "type dict"), ("ab", "type str"), (3, "type int")]
)
def test_a_return_value_of_another_kind_is_refused(found, kind):
    """A ``collect`` that forgot to return, or returns one dictionary, is told what it may return."""
    with pytest.raises(DataError, match=rf"Mine\.collect returned .*{kind}: a source yields dictionaries"):
        own.collection(found, "Mine")


def test_a_collection_is_left_as_it_is():
    """A source that makes its own collection is not looked through again."""
    made = Collection(())
    assert own.collection(made, "Mine") is made


def test_a_file_that_is_not_there_is_a_sentence(tmp_path):
    """A source that opens no file, at once or while it yields, is an error in words and not a traceback."""

    class Missing:
        def collect(self, ocr):
            yield from (tmp_path / "none.txt").read_text().splitlines()

    with pytest.raises(DataError, match=r"Missing\.collect cannot read its data: .*none\.txt"):
        own.collect(Missing(), None)
