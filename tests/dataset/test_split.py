"""The split: nothing near-identical straddles, the share is met, and the order of the rows does not matter."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.rendering import Renderer
from loraloop.dataset.similarity import normalise
from loraloop.dataset.split import group, hold_out
from loraloop.errors import DataError
from loraloop.records import Example, Message, Provenance, ToolCall

PARAGRAPH = (
    "The quick brown fox jumps over the lazy dog while seven wizards quietly mix bright potions "
    "beside an old stone bridge near our village market every single morning before sunrise"
)


def example(input: str, task: str = "", origin: str = "", instruction: str = "", output: str = "x") -> Example:
    return Example.one_turn(
        input=input,
        output=output,
        task=task,
        origin=origin,
        instruction=instruction,
        provenance=Provenance(source="test"),
    )


inputs = st.sampled_from(["a", "A", "a ", "a.", "b", "B b", "bb", "c", "d", "!", "?", "", "e f", "ef", "g", "h"])
examples = st.lists(
    st.builds(
        example,
        inputs,
        task=st.sampled_from(["", "t", "u"]),
        origin=st.sampled_from(["", "", "", "o", "p"]),
        instruction=st.sampled_from(["", "i", "j"]),
        output=st.sampled_from(["x", "y"]),
    ),
    min_size=2,
    max_size=40,
)
shares = st.sampled_from([0.1, 0.2, 0.5, 0.9])


@given(examples, shares, st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_nothing_near_identical_straddles(rows, share, seed):
    """Equal inputs, inputs equal up to case, space and punctuation, and equal origins are on one side."""
    if len(group(rows)) < 2:
        return
    held_out = hold_out(rows, share, seed)

    def sides(key) -> set[tuple]:
        return {(key(row), place in held_out) for place, row in enumerate(rows) if key(row)}

    for key in (
        lambda row: row.input,
        lambda row: normalise(row.input),
        lambda row: row.origin,
        lambda row: not row.input and normalise(row.instruction),
    ):
        assert len(sides(key)) == len({name for name, _ in sides(key)})


@given(examples, shares, st.integers(0, 3), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_the_order_of_the_rows_does_not_matter(rows, share, seed, random):
    """Shuffled rows are held out exactly when the unshuffled ones are."""
    if len(group(rows)) < 2:
        return
    shuffled = random.sample(range(len(rows)), len(rows))
    held_out = hold_out(rows, share, seed)
    again = hold_out([rows[place] for place in shuffled], share, seed)
    assert {shuffled[place] for place in again} == held_out


@given(examples, shares, st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_the_share_is_met_within_a_group(rows, share, seed):
    """Both sides have rows, and the validation side misses its share by no more than the largest group."""
    groups = group(rows)
    if len(groups) < 2:
        return
    held_out = hold_out(rows, share, seed)
    assert 0 < len(held_out) < len(rows)
    assert abs(len(held_out) - share * len(rows)) <= max(map(len, groups)) + 1


@given(examples)
@settings(max_examples=100, deadline=None)
def test_the_groups_are_a_partition(rows):
    """Every example is in exactly one group."""
    assert sorted(place for places in group(rows) for place in places) == list(range(len(rows)))


def test_distinct_rows_are_split_exactly_and_by_task():
    """With distinct inputs the share is exact, overall and in every task."""
    rows = [example(f"row {number}", task=f"task{number % 5}") for number in range(3200)]
    held_out = hold_out(rows, 0.2, 0)
    assert Counter(rows[place].task for place in held_out) == {f"task{number}": 128 for number in range(5)}


def test_a_rare_task_is_on_both_sides():
    """A task of two rows among a thousand has one on each side."""
    rows = [example(f"row {number}", task="rare" if number < 2 else "common") for number in range(1000)]
    assert Counter(rows[place].task for place in hold_out(rows, 0.2, 1)) == {"rare": 1, "common": 199}


def test_the_seed_decides():
    """Another seed holds out other rows, the same seed the same ones."""
    rows = [example(f"row {number}") for number in range(100)]
    assert hold_out(rows, 0.2, 0) == hold_out(rows, 0.2, 0) != hold_out(rows, 0.2, 1)


def test_large_groups_are_not_preferred():
    """A group's chance to be held out does not grow with its size (as long as it is under a tenth of the side)."""
    rows = [example(f"pair {number // 2}" if number < 1000 else f"single {number}") for number in range(2000)]
    shares = [sum(place < 1000 for place in hold_out(rows, 0.2, seed)) / 400 for seed in range(10)]
    assert 0.4 < np.mean(shares) < 0.6


def test_one_giant_group_does_not_take_the_place_of_others():
    """30 equal rows of 320, which could fill half of the validation side, stay in training; 64 others are held out."""
    rows = [example("the same" if number < 30 else f"row {number}") for number in range(320)]
    for seed in range(50):
        held_out = hold_out(rows, 0.2, seed)
        assert len(held_out) == 64
        assert min(held_out) >= 30


def test_long_texts_with_a_changed_word_stay_together():
    """Copies of a paragraph that differ in a word are one group; two other paragraphs are not."""
    rows = [example(PARAGRAPH.replace("wizards", word)) for word in ("wizards", "witches", "dragons")]
    rows += [example(" ".join(f"{letter}{number}" for number in range(40))) for letter in "ab"]
    assert sorted(map(sorted, group(rows))) == [[0, 1, 2], [3], [4]]


def test_a_template_does_not_chain_a_task_into_one_group():
    """A long form with ever other figures stays apart row by row, but equal rows of it still stay together."""
    rows = [example(f"{PARAGRAPH} {number // 2}", task="form") for number in range(200)]
    rows += [example(f"row {number}", task="other") for number in range(800)]
    groups = group(rows)
    assert Counter(map(len, groups)) == {2: 100, 1: 800}
    held_out = hold_out(rows, 0.2, 0)
    assert Counter(rows[place].task for place in held_out) == {"form": 40, "other": 160}


def test_instructions_count_where_there_is_no_input():
    """Questions without an input are told apart by their instructions."""
    rows = [example("", instruction=question) for question in ("Who?", "What?", "who")]
    assert sorted(map(sorted, group(rows))) == [[0, 2], [1]]


def test_punctuation_alone_is_compared_as_it_is():
    """Inputs that would be empty after normalising are equal only when they are equal."""
    assert len(group([example("+-+-"), example("---"), example("---"), example("...")])) == 3


def test_one_group_cannot_be_split():
    """Rows that are all near-identical are refused with the numbers."""
    rows = [example("same"), example("Same."), example("same", output="y")]
    with pytest.raises(DataError, match="3 examples form 1 group of near-identical inputs"):
        hold_out(rows, 0.2, 0)


def test_a_conversation_and_its_near_copies_stay_on_one_side():
    """Conversations that differ in a word, and the rows that one conversation becomes, are held out together."""

    def chat(number: int, word: str) -> Example:
        said = [f"{PARAGRAPH} {number * 'again and '}", "yes", f"And the {word}?", f"the {word} {number}"]
        turns = (Message(("user", "assistant")[place % 2], (text,)) for place, text in enumerate(said))
        return Example(messages=tuple(turns), provenance=Provenance(source="test", index=number))

    alike = [chat(0, word) for word in ("witch", "wizard", "dragon")]
    assert [len(each) for each in group(alike)] == [3]
    renderer = Renderer("{instruction}\n{input}\n> ", None)
    distinct = [example(f"row {number}") for number in range(20)]
    rows = [row for each in (chat(0, "witch"), *distinct) for row in renderer.rows(each)]
    held = hold_out([row.example for row in rows], 0.5, 0)
    assert len(rows) == 22
    assert (0 in held) == (1 in held)


def talk(*said: str, learned: bool = True) -> Example:
    """A conversation of a user and an assistant in turn; a lone ``learned`` answer is its last."""
    turns = [
        Message(("user", "assistant")[place % 2], (text,), learned=learned or place == len(said) - 1)
        for place, text in enumerate(said)
    ]
    return Example(messages=tuple(turns), provenance=Provenance(source="test"))


def test_a_conversation_stays_with_those_that_go_on_from_its_past():
    """Equal pasts of learned turns make one group, whatever the system said; a turn that is not learned makes none."""
    short, long = talk("q", "a"), talk("Q.", "a", "q2", "b")
    system = Message("system", ("s",))
    other = Example(messages=(system, *talk("q", "a", "q3", "c").messages), provenance=short.provenance)
    unlearned = talk("q", "a", "q4", "d", learned=False)
    rest = [talk(f"r{number}", "a") for number in range(20)]
    assert [each for each in group([short, long, other, unlearned, *rest]) if len(each) > 1] == [[0, 1, 2]]
    one_turn = [example("q", output="a", instruction="i"), long, *rest]
    assert group(one_turn)[0] == [0, 1]


def test_an_opening_of_most_conversations_joins_nothing():
    """Conversations that all begin with a greeting are split by what follows, and one with its beginnings is not."""
    rows = [talk("hi", "hello", f"q{number}", "a", f"more {number}", "b") for number in range(30)]
    assert len(group(rows)) == 30
    told = [word for number in range(50) for word in (f"q{number}", f"a{number}")]
    rows += [talk("hi", "hello", *told[: 2 * turns]) for turns in range(1, 50)]
    assert sorted(map(len, group(rows)))[-2:] == [1, 50]


def test_calls_of_earlier_turns_tell_conversations_apart():
    """Conversations whose earlier calls have equal arguments are one group, whatever their ids, and others are not."""

    def called(at: str, id: str) -> Example:
        messages = (
            Message("user", ("look",)),
            Message("assistant", (), (ToolCall("look", {"at": at, "up": 1}, id),), learned=False),
            Message("tool", ("lit",), tool_call_id=id),
            Message("assistant", ("a",)),
            Message("user", (f"and then {id}?",)),
            Message("assistant", ("b",)),
        )
        return Example(messages=messages, provenance=Provenance(source="test"))

    rows = [called("panel", "c1"), called("panel", "c2"), called("vault", "c3")]
    assert group(rows) == [[0, 1], [2]]


def test_questions_with_one_answer_are_split_as_ever():
    """The rows that are held out of data without conversations are those of earlier versions."""
    rows = [
        example(f"row {number % 70}" if number % 7 else "", f"t{number % 3}", "", f"i{number % 11}", str(number % 2))
        for number in range(200)
    ]
    held = repr(sorted(hold_out(rows, 0.2, 0))).encode()
    assert hashlib.sha256(held).hexdigest()[:16] == "d18032bcc6033adb"
