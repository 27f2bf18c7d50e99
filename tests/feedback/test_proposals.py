"""Which corrections are proposed for badly rated sessions."""

from __future__ import annotations

from loraloop.feedback.review import propose
from loraloop.records import Rating


def put(store, make, name, stars, answer, **changes):
    """Keep a rated session."""
    store.keep(make(name, answer=answer, **changes))
    store.rate(name, Rating(stars=stars))


def waiting(store):
    """Session and text of what waits."""
    return [(each.session, each.text) for each in store.proposals()]


def test_a_good_sibling_is_proposed(file, make):
    """The best-rated answer to the same task by the same role is proposed for bad ones, once."""
    put(file, make, "bad", 3, "1 head")
    put(file, make, "slow", 5, "two heads", duration=40.0)
    put(file, make, "good", 5, "2 heads")
    put(file, make, "fair", 4, "2")
    put(file, make, "other", 2, "?", prompt="another task")
    put(file, make, "role", 2, "?", role="actor")
    for _ in range(2):
        propose(file)
        assert waiting(file) == [("bad", "2 heads")]


def test_the_same_answer_corrects_nothing(file, make):
    """An answer is not proposed against itself, white space and case aside; nor is an empty one."""
    put(file, make, "bad", 1, "2 heads")
    put(file, make, "good", 5, " 2  Heads")
    put(file, make, "empty", 5, "")
    propose(file)
    assert waiting(file) == []


def test_what_was_decided_stays_decided(file, make):
    """A rejected sibling does not come back, and a corrected session needs none."""
    put(file, make, "bad", 1, "1 head")
    put(file, make, "good", 5, "2 heads")
    propose(file)
    file.decide(file.proposals()[0].id, "rejected")
    propose(file)
    assert waiting(file) == []
    file.propose([("bad", "user", "3 heads")])
    file.decide(file.proposals()[0].id, "accepted")
    put(file, make, "better", 5, "4 heads", duration=0.1)
    propose(file)
    assert waiting(file) == []
