"""What waits to be exported, in SQLite and in PostgreSQL."""

from __future__ import annotations

import contextlib

import pytest

from loraloop.feedback.links import Links
from loraloop.feedback.store import Store
from loraloop.records import Rating
from loraloop.tracing.queue import Queue, put


@pytest.fixture
def both(database, tmp_path):
    """A store on either database, and the queue of its sessions."""
    queue = Queue(database, "mlflow")
    return Store(database, Links(tmp_path / "key", 60), on_kept=put(["mlflow", "otlp"])), queue


def ids(sessions):
    """The ids of sessions."""
    return [each.id for each in sessions]


def test_a_session_waits_until_it_was_sent(both, make):
    """A kept session waits for each place on its own; one that failed goes behind the others, and is not lost."""
    store, queue = both
    for name in ("a", "b", "c"):
        store.keep(make(name))
    assert queue.waiting() == 3
    first = queue.take(1)
    queue.failed(first)
    rest = queue.take(2)
    assert set(ids(first) + ids(rest)) == {"a", "b", "c"}
    assert rest[0].prompt == make().prompt
    queue.sent(rest)
    assert ids(queue.take(9)) == ids(first)
    assert Queue(store.database, "otlp").waiting() == 3


def test_a_session_and_its_place_in_the_queue_are_kept_together(both, make):
    """Where the queue cannot be written, the session is not kept either, and an imported session does not wait."""
    store, queue = both

    def fails(connection, session):
        raise RuntimeError

    store._on_kept = fails
    with contextlib.suppress(RuntimeError):
        store.keep(make())
    assert store.all() == []
    store.insert(make("imported"))
    assert queue.waiting() == 0


def test_ratings_wait_for_their_trace(both, make):
    """A rating and a reviewed correction are sent after their session, once; one that came from MLflow is not."""
    store, queue = both
    for name in ("a", "b"):
        store.keep(make(name))
    store.rate("a", Rating(stars=2, comment="cold", issues=("timeout",), correction="Warm."), key="desk")
    store.rate("b", Rating(stars=4), key="mlflow:bob")
    assert (queue.ratings(9), queue.corrections(9)) == ([], [])
    queue.sent(queue.take(9))
    assert queue.corrections(9) == []
    store.decide(store.proposals()[0].id, "edited", "Mild.")
    (given,), (corrected,) = queue.ratings(9), queue.corrections(9)
    assert (given.session, given.stars, given.comment, given.issues, given.key) == (
        "a",
        2,
        "cold",
        ("timeout",),
        "desk",
    )
    assert (corrected.session, corrected.text) == ("a", "Mild.")
    queue.told(given)
    queue.told(corrected)
    assert (queue.ratings(9), queue.corrections(9)) == ([], [])


def test_what_was_taken_over_is_known(both, make):
    """An assessment that was taken over is known by its id."""
    store, queue = both
    store.keep(make("a"))
    queue.take_back("a-1", "a", "ratings")
    assert queue.taken(["a-1", "a-2"]) == {"a-1"}


def test_a_deleted_session_leaves_nothing(both, make):
    """Whoever deletes a session deletes its place in the queue, and what is known of its assessments, with it."""
    store, queue = both
    store.keep(make("a", status="cancelled"))
    queue.take_back("a-1", "a", "ratings")
    with store.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM sessions")
    assert (queue.waiting(), queue.taken(["a-1"])) == (0, set())
