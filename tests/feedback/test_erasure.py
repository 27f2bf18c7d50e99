"""Erasing sessions from either database."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from loraloop.errors import StoreError
from loraloop.feedback import erasure, schema
from loraloop.feedback.erasure import Chosen, Counted
from loraloop.records import Rating

WORDS = "the vault's word is fjordhest"


@pytest.fixture
def filled(store, make):
    """Five sessions of two clients under two keys; the first two are one conversation, and both levels are rated."""
    past = [*make().prompt, {"role": "assistant", "content": make().answer}]
    ann = {"client": "ann", "asked_key": "app"}
    store.keep(make("s1", **ann))
    store.keep(make("s2", prompt=[*past, {"role": "user", "content": WORDS}], **ann))
    store.keep(make("s3", client="ann", asked_key="other", conversation="c"))
    store.keep(make("s4", client="bob", asked_key="app", time="2025-01-01T00:00:00.000+00:00"))
    store.keep(make("s5", time=None))
    store.rate("s1", Rating(stars=2, correction="3 heads"))
    store.rate("s2", Rating(stars=1), level="conversation")
    return store


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        ({}, []),
        ({"client": "ann"}, ["s1", "s2", "s3"]),
        ({"client": "ann", "key": "app"}, ["s1", "s2"]),
        ({"key": "app"}, ["s1", "s2", "s4"]),
        ({"conversation": "s1"}, ["s1", "s2"]),
        ({"conversation": "s2"}, ["s1", "s2"]),
        ({"conversation": "c"}, ["s3"]),
        ({"conversation": "c", "client": "bob"}, []),
        ({"before": "2025-06-01"}, ["s4"]),
    ],
)
def test_which_sessions_are_meant(filled, chosen, found):
    """A client, a key, a conversation by any of its names, and an age choose; without a choice nothing is meant."""
    assert Chosen(**chosen).ids(filled) == found


def test_everything_about_them_goes(filled):
    """Sessions, ratings of both levels and corrections are gone, as counted before; others stay as they were."""
    ids = Chosen(conversation="s1").ids(filled)
    before = erasure.count(filled, ids)
    assert before == Counted(sessions=2, ratings=2, corrections=1)
    assert erasure.erase(filled, ids) == before
    assert [each.id for each in filled.all()] == ["s3", "s4", "s5"]
    assert filled.proposals() == []
    tables = (schema.ratings, schema.corrections, schema.conversation_ratings, schema.next_turns)
    with filled.database.read() as connection:
        left = [connection.scalar(sa.select(sa.func.count()).select_from(each)) for each in tables]
    assert left == [3, 0, 0, 0]  # what the other three imply


def test_the_rating_of_a_conversation_stays_while_a_part_of_it_does(filled):
    """While one answer of a conversation is there, the conversation has its rating."""
    assert erasure.erase(filled, ["s1"]).ratings == 1
    assert filled.conversation_ratings(filled.all())["s2"].stars == 1


def test_a_second_time(filled, make):
    """What is gone is not counted again, and no import brings it back."""
    erasure.erase(filled, ["s1", "s2"])
    assert erasure.erase(filled, ["s1", "s2"]) == Counted()
    assert filled.insert(make("s1")) is False
    assert [each.id for each in filled.all()] == ["s3", "s4", "s5"]
    assert erasure.known(filled) == {"s1", "s2"}


def test_a_crash_between_batches(filled, monkeypatch):
    """A batch is erased whole or not at all, and the next call takes the rest."""
    monkeypatch.setattr(erasure, "BATCH", 1)
    write, done = filled.write, []

    def failing(work):
        if done:
            raise StoreError("the disk is full")
        done.append(write(work))
        return done[0]

    ids = Chosen(client="ann").ids(filled)
    with monkeypatch.context() as patch:
        patch.setattr(filled, "write", failing)
        with pytest.raises(StoreError):
            erasure.erase(filled, ids)
    assert [each.id for each in filled.all()] == ["s2", "s3", "s4", "s5"]
    assert erasure.erase(filled, ids).sessions == 2


def test_nothing_is_left_in_the_file(file, make):
    """After an erasure the bytes of a text are neither in SQLite's file nor in its log."""
    file.keep(make("s1", prompt=WORDS))
    files = [Path(f"{file.database.url.database}{end}") for end in ("", "-wal")]
    assert any(b"fjordhest" in each.read_bytes() for each in files)
    erasure.erase(file, ["s1"])
    assert not any(b"fjordhest" in each.read_bytes() for each in files if each.exists())
