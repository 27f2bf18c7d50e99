"""What the user's next turn says about the answer before it."""

from __future__ import annotations

import pytest

from loraloop.feedback.next_turn import signal
from loraloop.feedback.settings import Feedback
from loraloop.records import Message


def said(*texts: str) -> list[Message]:
    """User and assistant in turn."""
    return [Message("assistant" if place % 2 else "user", (text,)) for place, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("No, that's B7.", "corrects"),
        ("That is not right: look again", "corrects"),
        ("that isn\N{RIGHT SINGLE QUOTATION MARK}t what I asked", "corrects"),
        ("Actually, I meant the left one", "corrects"),
        ("count  THE heads", "again"),
        ("Please try again.", "again"),
        ("Thanks a lot!", "thanks"),
        ("Perfect, thank you", "thanks"),
        ("No problem, thanks", None),
        ("No more questions", None),
        ("Thanks, but this is the wrong one", None),
        ("that is right", None),
        ("and the tails?", None),
        ("Nein, das ist falsch", None),
        ("", None),
    ],
)
def test_the_rule(text, found):
    """English beginnings tell a correction, a repetition and thanks; whatever else is said tells nothing."""
    assert signal(said("Count the heads", "2", text)) == found


def test_turns_that_are_not_about_an_answer():
    """A first turn, a tool's result and a second turn of the user in a row say nothing about an answer."""
    assert signal(said("no")) is None
    assert signal([*said("a", "2"), Message("tool", ("no",))]) is None
    assert signal([*said("a", "2", "b"), Message("user", ("no",))]) is None


def test_it_is_kept_of_its_own_kind(settings, make):
    """Where it is asked for, the first next turn that says something is a signal about the answer, and no stars."""
    first = [{"role": "user", "content": "HHTT"}]
    past = [*first, {"role": "assistant", "content": "2 heads, 2 tails"}]
    noting = type(settings)(url=settings.url, folder=settings.folder, next_turn=True).open()
    noting.keep(make("s1", prompt=first))
    for number, text in enumerate(("go on", "No, 3 heads", "thanks"), 2):
        noting.keep(make(f"s{number}", prompt=[*past, {"role": "user", "content": text}], answer="ok"))
    assert noting.signals(noting.all()) == {"s1": "corrects"}
    assert [(each.stars, each.implied) for each in noting.all()] == [(None, 5)] * 4
    noting.close()


def test_it_is_off(file, make):
    """Without ``feedback.next_turn`` no signal is kept."""
    assert Feedback().next_turn is False
    file.keep(make("s1"))
    turns = [*make().prompt, {"role": "assistant", "content": make().answer}, {"role": "user", "content": "wrong"}]
    file.keep(make("s2", prompt=turns))
    assert file.session("s2").conversation_id == "s1"
    assert file.signals(file.all()) == {}
