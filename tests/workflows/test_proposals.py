"""Which corrections are proposed for badly rated sessions, and what becomes of the decisions on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from loraloop.core.rendering import Renderer
from loraloop.errors import DataError
from loraloop.feedback import layout
from loraloop.feedback.settings import Feedback
from loraloop.feedback.store import Store
from loraloop.model.tokenizer import byte_tokenizer
from loraloop.records import Rating, Session
from loraloop.source.sessions import Sessions, reading
from loraloop.trainer.dpo import Dpo
from loraloop.workflows.proposals import propose
from loraloop.workflows.retraining.training_set import TrainingSetBuilder


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Store]:
    """An empty store, whose corrections wait for review."""
    made = Feedback(folder=tmp_path / "mlruns").open()
    yield made
    made.close()


def put(store: Store, name: str, stars: int, answer: str, key: str | None = None, **changes: Any) -> None:
    """Keep a session, and rate it with ``key``."""
    values = {"time": "2026-03-02T11:00:00.000+00:00", "answered": "ocr@7", "role": "validator", "status": "ok"}
    store.keep(Session(**{"id": name, "prompt": "HHTT", "answer": answer, "duration": 1.0} | values | changes))
    store.rate(name, Rating(stars=stars), key)


def waiting(store: Store) -> list[tuple[str, str]]:
    """Session and text of what waits."""
    return [(each.session, each.text) for each in store.proposals()]


def learned(store: Store, *, reviewed: bool = True, **settings: Any) -> list[tuple[str | None, str]]:
    """Session and target of what ``source=sessions`` learns from the database."""
    part = Sessions(path=store.database.url.render_as_string(), min_corrective=0, **settings)
    if not reviewed:
        part = Sessions(path=part.path, min_corrective=0, review="none", **settings)
    try:
        return [(each.provenance.session_id, each.output) for each in part.collect().examples]
    except DataError:  # no example at all
        return []


def retrained(store: Store) -> list[str]:
    """What a retraining learns from the store."""
    policy: Any = SimpleNamespace(below=4, min_corrective=0, learn="sft")
    unused: Any = None
    everything: Any = SimpleNamespace(role="validator", owns=lambda version: True)
    builder = TrainingSetBuilder(policy, Path(), store, unused, unused, unused, 0)
    return [each.output for each in builder._corrective(everything)]


def test_a_good_sibling_is_proposed(file):
    """The best-rated answer to the same task by the same role is proposed for bad ones, once."""
    put(file, "bad", 3, "1 head")
    put(file, "slow", 5, "two heads", duration=40.0)
    put(file, "good", 5, "2 heads")
    put(file, "fair", 4, "2")
    put(file, "other", 2, "?", prompt="another task")
    put(file, "role", 2, "?", role="actor")
    for _ in range(2):
        propose(file)
        assert waiting(file) == [("bad", "2 heads")]


def test_what_a_rule_makes_is_proposed_too(file):
    """An answer that a rule makes of the recorded calls waits for review, and is learned from once it was accepted."""
    calls = [{"tool_calls": [{"name": "reload", "arguments": {}}]}]
    file.insert(Session(id="bad", prompt="load", iterations=calls, rating=Rating(stars=1, issues=("timeout",))))
    assert retrained(file) == []
    propose(file)
    (proposal,) = file.proposals()
    assert (proposal.source, proposal.text) == ("rule", "wait_for(target=reload,timeout=30); reload()")
    file.decide(proposal.id, "accepted")
    assert retrained(file) == [proposal.text]


def test_only_what_can_be_learned_from_is_read(file):
    """Of a database, sessions that nobody rated, or between bad and good, are counted and not read."""
    for name, stars in (("bad", 1), ("good", 5), ("fair", 4)):
        put(file, name, stars, name)
    put(file, "other", 5, "other", prompt="another task")
    file.keep(Session(id="unrated", prompt="HHTT", answer="?", status="ok"))
    url = file.database.url
    assert set(reading.rated(url, 4, 5)[0]) == {"bad", "good", "other"}
    assert set(reading.corrective(url, 4, 5)[0]) == {"bad", "good"}
    with pytest.raises(DataError, match=r"holds 5 sessions, from .* 3 are not rated, or not rated so that"):
        Sessions(path=url.render_as_string(), use=("corrective",)).collect()


def test_the_same_answer_corrects_nothing(file):
    """An answer is not proposed against itself, white space and case aside; nor is an empty one."""
    put(file, "bad", 1, "2 heads")
    put(file, "good", 5, " 2  Heads")
    put(file, "empty", 5, "")
    propose(file)
    assert waiting(file) == []


def test_what_was_decided_stays_decided(file):
    """A rejected sibling does not come back, and a corrected session needs none."""
    put(file, "bad", 1, "1 head")
    put(file, "good", 5, "2 heads")
    propose(file)
    file.decide(file.proposals()[0].id, "rejected")
    propose(file)
    assert waiting(file) == []
    file.propose([("bad", "user", "3 heads")])
    file.decide(file.proposals()[0].id, "accepted")
    put(file, "better", 5, "4 heads", duration=0.1)
    propose(file)
    assert waiting(file) == []


@pytest.mark.parametrize("reviewed", [True, False])
def test_six_rejected_proposals_are_learned_from_nowhere(file, tmp_path, reviewed):
    """A rejected sibling is no target, no positive example and no chosen side of a pair, also out of an export."""
    for number in range(6):
        put(file, f"bad{number}", 1, f"{number} heads")
    put(file, "good", 5, "obey the caller")
    propose(file)
    assert len(waiting(file)) == 6
    assert retrained(file) == []
    for proposal in file.proposals():
        file.decide(proposal.id, "rejected")
    file.reviewed = reviewed
    assert retrained(file) == learned(file, reviewed=reviewed) == []
    assert learned(file, reviewed=reviewed, pairs=True) == []
    layout.export(file, tmp_path / "out")
    copy = Feedback(folder=tmp_path / "copy").open()
    layout.load(copy, tmp_path / "out")
    assert learned(copy, reviewed=False) == []
    copy.close()
    with pytest.raises(DataError, match="rejected in review"):
        Sessions(path=tmp_path / "out", min_corrective=0).collect()


def test_a_decision_is_about_the_task(file):
    """What is accepted for one session is right for all of its task; an edited proposal is not right as it was."""
    for number in range(2):
        put(file, f"bad{number}", 1, f"{number} heads")
        put(file, f"worse{number}", 1, f"{number} tails", prompt="TTHH")
    put(file, "good", 5, "2 heads")
    put(file, "other", 5, "2 tails", prompt="TTHH")
    propose(file)
    asked = {each.session: each.id for each in file.proposals()}
    file.decide(asked["bad0"], "accepted")
    file.decide(asked["worse0"], "edited", "2 tails, 2 heads")
    assert sorted(retrained(file)) == ["2 heads", "2 heads", "2 tails, 2 heads"]


@pytest.mark.parametrize(
    ("asked", "rated", "taken", "proposed"),
    [
        ("app", "app", False, False),
        ("app", None, False, True),
        ("app", "desk", True, True),
        (None, None, True, True),
    ],
)
def test_who_asked_cannot_make_its_own_answer_a_target(file, asked, rated, taken, proposed):
    """A good answer counts when another key than the one that asked rated it; users that a client names count not."""
    put(file, "bad", 1, "1 head", "app", asked_key="app", client="ann")
    put(file, "good", 5, "obey the caller", rated, asked_key=asked, client="bob")
    propose(file)
    assert bool(waiting(file)) is proposed
    targets = {text for _, text in learned(file, reviewed=False)}
    assert targets == ({"obey the caller"} if taken else set())
    file.reviewed = False
    assert retrained(file) == (["obey the caller"] if taken else [])


def test_a_password_in_a_prompt_is_not_retrained_on(file):
    """A corrected session whose prompt holds a secret is left out of the training set."""
    for name, prompt in (("bad", "password: Tr0ub4dor&3x"), ("worse", "HHTT")):
        put(file, name, 1, "?", prompt=prompt)
        file.propose([(name, "user", f"2 heads of {name}")])
    for proposal in file.proposals():
        file.decide(proposal.id, "accepted")
    assert retrained(file) == ["2 heads of worse"]


def test_a_decision_counts_whatever_the_rating_of_its_session(file):
    """A correction that was rejected on a session with four stars keeps that answer out of training."""
    put(file, "fair", 4, "2")
    put(file, "good", 5, "two heads")
    put(file, "bad", 1, "1 head")
    file.propose([("fair", "user", "two heads")])
    (proposal,) = file.proposals()
    file.decide(proposal.id, "rejected")
    assert "two heads" not in [text for _, text in learned(file, reviewed=False)]
    propose(file)
    assert waiting(file) == []


def test_sessions_below_another_bound_are_proposed_for(file):
    """With `below=5`, as a policy may have it, sessions of four stars get their good sibling for review too."""
    put(file, "fair", 4, "2")
    put(file, "good", 5, "2 heads")
    propose(file)
    assert waiting(file) == []
    propose(file, below=5)
    assert waiting(file) == [("fair", "2 heads")]


def test_a_persons_correction_that_nobody_decided_on_is_said_to_wait(file):
    """A bad session whose correction waits for review is counted as waiting, not as one that nobody corrected."""
    file.keep(Session(id="bad", prompt="HHTT", answer="?", status="ok"))
    file.rate("bad", Rating(stars=1, correction="2 heads, 2 tails"))
    with pytest.raises(
        DataError, match=r"(?s)1 wait for a person: stage=review.*its correction waits for review"
    ) as said:
        Sessions(path=file.database.url.render_as_string()).collect()
    assert "no person corrected it" not in str(said.value)


def test_a_decision_is_a_preference_pair(file):
    """What a person accepted or edited is chosen over the answer that it corrects, whatever the stars, for DPO."""
    put(file, "bad", 1, "1 head")
    put(file, "fair", 3, "2 head", prompt="TTHH")
    put(file, "refused", 1, "3 heads", prompt="HTHT")
    file.propose([("bad", "user", "2 heads"), ("fair", "user", "2 tails"), ("refused", "user", "4 heads")])
    bad, fair, refused = (each.id for each in file.proposals())
    file.decide(bad, "accepted")
    file.decide(fair, "edited", "2 tails, 2 heads")
    file.decide(refused, "rejected")
    pairs = Sessions(path=file.database.url.render_as_string(), pairs=True, min_corrective=0).collect().examples
    assert [(each.output, each.rejected.text) for each in pairs] == [
        ("2 heads", "1 head"),
        ("2 tails, 2 heads", "2 head"),
    ]
    tokenizer = byte_tokenizer()
    rows = [row for each in pairs for row in Renderer("chatml", tokenizer).rows(each)]
    fitted = Dpo(max_length=64).fitting(rows, tokenizer, "training")
    assert len(fitted.rows) == 2, fitted.left_out
