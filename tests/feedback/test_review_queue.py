"""The order in which corrections wait for a person."""

from __future__ import annotations

import pytest

from loraloop.feedback.review_queue import Queue, Worth
from loraloop.records import Assessment, Rating


@pytest.fixture
def waiting(file, make):
    """Four answers with a proposal each: by id the stars, the judge's score if any, and the agent role."""
    sessions = {"a": (3, None, "validator"), "b": (1, 5, "validator"), "c": (3, 1, "actor"), "d": (2, 2, "actor")}
    for name, (stars, score, role) in sessions.items():
        file.keep(make(name, role=role, prompt=name))
        file.rate(name, Rating(stars=stars, correction=f"right of {name}"))
        if score is not None:
            file.assess(name, [Assessment(id="", source="judge", by="m", kind="feedback", name="score:0", value=score)])
    return file


def order(store, **settings):
    """The sessions in the order of the queue."""
    return [each.session.id for each in Queue(**settings).items(store)]


def test_what_would_teach_most_comes_first(waiting):
    """The sum of low stars, a low score, disagreement and a weak role decides; without the judge its terms are 0."""
    totals = {each.session.id: each.worth.total for each in Queue().items(waiting)}
    assert totals == {"a": 0.5 + 0.75, "b": 1 + 0 + 1 + 0.75, "c": 0.5 + 1 + 0.5 + 0.625, "d": 0.75 + 0.75 + 0 + 0.625}
    assert order(waiting) == ["b", "c", "d", "a"]
    assert order(waiting, judge="never") == ["b", "d", "a", "c"]


def test_the_other_orders(waiting):
    """``judge`` begins with its lowest score and ends with what it did not score; ``oldest`` is that of proposing."""
    assert order(waiting, order="judge") == ["c", "d", "b", "a"]
    assert order(waiting, order="oldest") == ["a", "b", "c", "d"]
    with pytest.raises(ValueError, match=r"policy\.judge=never: write order=teach"):
        Queue(order="judge", judge="never")


def test_nothing_known_is_worth_nothing():
    """A session that nobody rated or judged, of a role without ratings, comes last."""
    assert Worth().total == 0
