"""Which answers the store takes for one conversation, and what is rated of it."""

from __future__ import annotations

import pytest

from loraloop.feedback.store import RatedError
from loraloop.records import Rating

CALL = '<tool_call>{"name": "read", "arguments": {"place": "B7", "side": 2}}</tool_call>'
SENT_BACK = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": '{"side":2, "place":"B7"}'}}
    ],
}
FIRST = [{"role": "system", "content": "Read the dial."}, {"role": "user", "content": "HHTT"}]
SECOND = [*FIRST, SENT_BACK, {"role": "tool", "tool_call_id": "call_1", "content": "42"}]
THIRD = [*SECOND, {"role": "assistant", "content": "It is\n42."}, {"role": "user", "content": "and the next?"}]


def keep(store, make, **more):
    """Keep the three requests of a conversation in which a tool is called."""
    asked = ((FIRST, CALL), (SECOND, " It is 42. "), (THIRD, "43"))
    for number, (prompt, answer) in enumerate(asked, 1):
        time = f"2026-03-02T11:00:0{number}.000+00:00"
        store.keep(make(f"s{number}", time=time, prompt=prompt, answer=answer, **more))


def ids(store):
    """The conversation of every session."""
    return {each.id: each.conversation_id for each in store.all()}


def test_requests_that_repeat_the_past_are_one_conversation(store, make):
    """Each request goes on with the answer that it repeats, calls and results included, however a client writes it."""
    keep(store, make)
    store.keep(make("s4", prompt=FIRST, answer="another"))
    assert ids(store) == {"s1": "s1", "s2": "s1", "s3": "s1", "s4": "s4"}


def test_a_past_that_was_not_answered_here(file, make):
    """A request whose past nobody was given here, or that is no chat, is a conversation of its own."""
    keep(file, make)
    file.keep(make("s4", prompt=[*FIRST, {"role": "assistant", "content": "made up"}, FIRST[1]]))
    file.keep(make("s5", prompt="HHTT"))
    assert (ids(file)["s4"], ids(file)["s5"]) == ("s4", "s5")


@pytest.mark.parametrize("other", [{"asked_key": "b"}, {"client": "bob"}])
def test_nobody_goes_on_with_the_conversation_of_another(file, make, other):
    """The same words under another key, or of another user of that key, begin a conversation of their own."""
    keep(file, make, asked_key="a", client="ann")
    file.keep(make("s4", prompt=SECOND, **{"asked_key": "a", "client": "ann"} | other))
    assert ids(file)["s4"] == "s4"


def test_the_name_that_a_client_gives_wins(file, make):
    """Requests of one name are one conversation whatever they repeat; of another key, the same name is another."""
    keep(file, make)
    file.keep(make("s4", prompt=SECOND, conversation="ticket"))
    file.keep(make("s5", prompt="plain", conversation="ticket"))
    file.keep(make("s6", prompt="plain", conversation="ticket", asked_key="b"))
    found = ids(file)
    assert found["s4"] == found["s5"]
    assert len({found["s1"], found["s4"], found["s6"], "ticket"}) == 4


def test_imported_sessions_are_linked_too(file, make):
    """What is imported in the order of its calls is one conversation."""
    for name, prompt, answer in (("a", FIRST, CALL), ("b", SECOND, "It is 42.")):
        assert file.insert(make(name, prompt=prompt, answer=answer))
    assert ids(file) == {"a": "a", "b": "a"}


def test_a_conversation_is_rated_apart_from_its_answers(store, make):
    """A conversation has one rating, by whichever answer it is named; that of an answer stands beside it."""
    keep(store, make)
    store.rate("s3", Rating(stars=5), level="answer")
    store.rate("s2", Rating(stars=2, comment="slow", issues=("timeout",)), "desk", level="conversation", claimed="bob")
    with pytest.raises(RatedError, match="the conversation of s1 is rated already"):
        store.rate("s1", Rating(stars=1), level="conversation")
    assert [each.stars for each in store.all()] == [None, None, 5]
    whole = Rating(stars=2, comment="slow", issues=("timeout",))
    assert store.conversation_ratings(store.all()) == dict.fromkeys(("s1", "s2", "s3"), whole)


def test_a_claim_is_kept_apart(store, make):
    """Who a request says that it rates for is kept beside the key that it came with, and is never taken for it."""
    store.keep(make())
    store.rate("s1", Rating(stars=2), "app", claimed="desk")
    with store.database.read() as connection:
        row = connection.exec_driver_sql("SELECT key, claimed FROM ratings WHERE kind = 'explicit'").one()
    assert (store.session("s1").rated_key, tuple(row)) == ("app", ("app", "desk"))
