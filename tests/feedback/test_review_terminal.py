"""Deciding on proposed corrections on a terminal."""

from __future__ import annotations

import click
import pytest
from rich.prompt import Prompt

from loraloop.feedback import erasure, review_terminal
from loraloop.feedback.review_queue import Queue
from loraloop.records import Rating
from loraloop.workflows import proposals

COUNT = [{"type": "function", "function": {"name": "count", "parameters": {
    "type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}}}]  # fmt: skip
CALL = '<tool_call>{"name": "count", "arguments": {"n": %s}}</tool_call>'


@pytest.fixture
def person(file, monkeypatch):
    """A person at the terminal, who presses keys; ``edits`` are what they make of the text in their editor."""

    def decide(keys, *edits):
        pressed, written = iter(keys), iter(edits)

        def ask(*_, **__):
            return next(pressed)

        def edit(text):
            made = next(written)
            return made(text) if callable(made) else made

        monkeypatch.setattr(Prompt, "ask", ask)
        monkeypatch.setattr(click, "edit", edit)
        review_terminal.decide_each(file, proposals.waiting(file, Queue()))
        assert not list(pressed), "every key was asked for"

    return decide


@pytest.fixture
def two(file, make):
    """Two answers with a correction each."""
    for name in ("s1", "s2"):
        file.keep(make(name, prompt=f"task of {name}", answer=f"wrong {name}"))
        file.rate(name, Rating(stars=2, correction=f"right {name}"))
    return file


def bob_edits(store):
    """Another person edits the first proposal."""
    store.decide(1, "edited", "theirs", key="bob")


def bob_takes_a_sibling(store):
    """Another person accepts another correction of the same session."""
    store.propose([("s1", "sibling", "theirs")])
    store.decide(3, "accepted", key="bob")


def user_writes_another(store):
    """The user proposes another correction in its place."""
    store.correct("s1", "newer")


def user_erases(store):
    """The session is erased."""
    erasure.erase(store, ["s1"])


LATE = [
    (bob_edits, "aer", ("proposal 1 was edited by bob at ", "theirs")),
    (
        bob_takes_a_sibling,
        "ae",
        ("another correction of the session of proposal 1, proposal 3, was accepted", "theirs"),
    ),
    (user_writes_another, "aer", ("proposed in its place", "Proposal 3 waits now")),
    (user_erases, "aer", ("its session was erased",)),
]


@pytest.mark.parametrize(("key", "meanwhile", "words"), [(key, case[0], case[2]) for case in LATE for key in case[1]])
def test_where_somebody_else_was_faster(two, person, monkeypatch, capsys, key, meanwhile, words):
    """What was decided first stands and is told, what was written is printed, and the next proposal follows."""
    keep = review_terminal.keep

    def late(store, proposal, *more):
        if proposal.id == 1:
            meanwhile(two)
        return keep(store, proposal, *more)

    monkeypatch.setattr(review_terminal, "keep", late)
    person([key, "a"], "mine")
    seen = capsys.readouterr().out
    assert all(each in seen for each in words)
    assert ("what you wrote was not kept:\nmine" in seen) == (key == "e")
    corrections = {each.id: each.correction for each in two.all()}
    assert corrections.pop("s1", None) == ("theirs" if "theirs" in words else None)
    assert corrections == {"s2": "right s2"}


def test_what_was_decided_meanwhile_is_not_asked(two, person, capsys):
    """A proposal on which somebody decided while another one was shown is passed by."""

    def slowly(text):
        two.decide(2, "accepted", key="bob")
        return "mine"

    person("e", slowly)
    assert two.session("s1").correction == "mine"
    assert "task of s2" not in capsys.readouterr().out


def test_a_call_that_its_tool_does_not_take(file, make, person, capsys):
    """It is told, neither accepted nor kept as an edit; the editor opens again with what was written."""
    file.keep(make("s1", prompt=[{"role": "user", "content": "how many?"}], answer="no", tools=COUNT))
    file.rate("s1", Rating(stars=2, correction=CALL % '"many"'))
    opened = []

    def first(text):
        opened.append(text)
        return f"All:\n{CALL % '[2]'}"

    def second(text):
        opened.append(text)
        return text.replace("[2]", "2\0")

    person("aeee", first, None, second)
    seen = capsys.readouterr().out
    assert "  does not fit       call 1 (count): n: 'many' is not of type 'integer'" in seen
    assert "not kept: call 1 (count): n: 'many' is not of type 'integer'" in seen
    assert "not kept: call 1 (count): n: [2] is not of type 'integer'" in seen
    assert "it is left as it was" in seen
    assert opened == [CALL % '"many"', f"All:\n{CALL % '[2]'}"]
    assert file.session("s1").correction == f"All:\n{CALL % 2}"


def test_a_correction_is_shown_as_a_difference(file, make, person, capsys):
    """The answer has a line for each argument, and the correction marks what it removes and adds, without escapes."""
    prompt = [{"role": "user", "content": "how many?"}]
    file.keep(make("s1", prompt=prompt, answer=f"So:\n{CALL % 2}", tools=COUNT))
    file.rate("s1", Rating(stars=2, correction=f"So,\x1b[2J then:\n{CALL % 3}"))
    person("s")
    seen = capsys.readouterr().out
    assert seen.startswith("Corrections are shown by what they change in the answer: [-removed-] {+added+}\n")
    column = "\n" + " " * 21
    assert column.join(["  answered           So:", "calls count", "  n: 2\n"]) in seen
    assert column.join(["  correction (user)  So{+,\ufffd[2J then+}:", "calls count", "  n: [-2-]{+3+}\n"]) in seen


def test_an_editor_that_ends_with_an_error(two, person, capsys):
    """It changes nothing, and the question is asked again: nobody is thrown out of the queue."""

    def fails(text):
        raise click.ClickException("vim: Editing failed")

    person("eea", fails, "mine")
    seen = capsys.readouterr().out
    assert "the editor ended with an error (vim: Editing failed)" in seen
    assert "it is left as it was" in seen
    assert {each.id: each.correction for each in two.all()} == {"s1": "mine", "s2": "right s2"}


@pytest.mark.parametrize(("text", "words"), [("WRONG  s1", "the answer that was given"), ("x" * 16_001, "longer than")])
def test_an_edit_is_held_to_the_pages_rules(two, person, capsys, text, words):
    """An edit that the page refuses is refused here; the person may leave."""
    person("eq", text)
    assert words in capsys.readouterr().out
    assert len(two.proposals()) == 2
