"""Decisions on proposed corrections, on either database."""

from __future__ import annotations

import threading

import pytest

from loraloop.errors import DataError
from loraloop.feedback.decisions import decision
from loraloop.records import Rating


@pytest.fixture
def two(store, make):
    """A store with two proposals for one session."""
    store.keep(make())
    store.rate("s1", Rating(stars=1, correction="first"))
    store.propose([("s1", "sibling", "second")])
    return store, [each.id for each in store.proposals()]


def test_who_decided_what_and_when(two):
    """A decision has its proposal, key, text and time; the other proposal of the session is answered by it."""
    store, (first, second) = two
    with store.database.read() as connection:
        assert decision(connection, first) is None
    store.decide(first, "edited", "third", key="ann")
    with store.database.read() as connection:
        made = decision(connection, first)
        assert (made.status, made.text, made.key, made.session) == ("edited", "third", "ann", "s1")
        assert made.time is not None
        assert decision(connection, second) == made
        assert decision(connection, 99) is None


def test_of_two_who_decide_at_once_one_counts(two):
    """Two proposals of one session that are accepted at the same moment leave one correction and one refusal."""
    store, proposals = two
    refused, start = [], threading.Barrier(2)

    def accept(proposal):
        start.wait()
        try:
            store.decide(proposal, "accepted", key=str(proposal))
        except DataError:
            refused.append(proposal)

    threads = [threading.Thread(target=accept, args=(each,)) for each in proposals]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(refused) == 1
    assert store.session("s1").correction == ("second" if refused == proposals[:1] else "first")
