"""Whose a conversation is, and when one holds too much."""

from __future__ import annotations

from loraloop.core.conversations import dominant, scoped
from loraloop.feedback.outcomes import outcome
from loraloop.records import Outcome, Session


def test_two_keys_have_two_conversations_of_one_name():
    """What two keys call the same are two conversations; without a key or a name nothing is added."""
    served = [
        Session(id=f"s{key}", prompt="p", time="2026-03-02", answered="ocr@7", conversation="ticket-1", asked_key=key)
        for key in ("acme", "bolt")
    ]
    assert len({outcome(each).conversation for each in served}) == 2
    assert (scoped("ticket-1", None), scoped(None, "acme")) == ("ticket-1", None)


def outcomes(count: int, alike: int) -> list[Outcome]:
    """Sessions of which the first so many have one conversation."""
    return [
        Outcome(session=f"s{i}", time="2026-03-02", conversation=str(max(i, alike)), rater=None, answered="ocr@7")
        for i in range(count)
    ]


def test_a_conversation_that_holds_much_is_named():
    """More than 5% of at least 100 sessions in one conversation are a warning; fewer are none."""
    assert "'6' holds 7 of 100 sessions" in (dominant(outcomes(100, 6)) or "")
    assert dominant(outcomes(100, 4)) is None
    assert dominant(outcomes(99, 99)) is None
