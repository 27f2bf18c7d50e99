"""What every database of sessions does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings, strategies

from loraloop.errors import DataError, StoreError
from loraloop.feedback.store import RatedError, UnknownSessionError
from loraloop.records import Assessment, Rating

BAD = Rating(stars=2, comment="off by 10 px", issues=("ocr_confidence_low",), correction="3 heads, 1 tail")


def test_what_was_served_is_read_back(store, settings, make):
    """A session comes back as it was, also through another connection, with the rating that its course implies."""
    store.keep(make(duration=12.0, retries=0))
    other = settings.open()
    found = other.session("s1")
    other.close()
    assert (found.prompt, found.answer, found.answered, found.asked) == (
        make().prompt, "2 heads, 2 tails", "ocr@7", "agent:validator",
    )  # fmt: skip
    assert (found.role, found.time, found.status, found.duration) == ("validator", make().time, "ok", 12.0)
    assert (found.rating, found.implied, found.correction) == (None, 4, None)
    assert (found.instruction, found.task, found.prompt_text) == ("Read the dial.", "HHTT", "Read the dial.\nHHTT")
    assert found.success


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=strategies.text(alphabet=strategies.characters(codec=None)))
def test_every_text_is_kept(store, make, text):
    """Prompts and answers come back to the character, with NUL, half surrogate pairs and control characters."""
    name = f"{abs(hash(text))}-{len(store.all())}"
    store.keep(make(name, prompt=text, answer=text))
    assert (store.session(name).prompt, store.session(name).answer) == (text, text)


def test_an_id_is_kept_once(store, make):
    """A second session of the same id is refused, and the first stays as it was."""
    store.keep(make())
    with pytest.raises(StoreError, match="kept already"):
        store.keep(make(answer="another"))
    assert store.session("s1").answer == "2 heads, 2 tails"


def test_explicit_and_implicit_stay_apart(store, make):
    """What a person gave stands beside what the course of the session implies, and neither changes the other."""
    store.keep(make())
    store.rate("s1", BAD)
    found = store.session("s1")
    assert (found.rating.stars, found.implied) == (2, 5)
    assert (found.rating.comment, found.rating.issues) == ("off by 10 px", ("ocr_confidence_low",))


def test_one_rating_per_session(store, make):
    """Of many ratings of one session at the same time exactly one is kept, with its correction."""
    store.keep(make())

    def rate(stars: int) -> int:
        try:
            store.rate("s1", Rating(stars=stars, correction=f"as {stars} said"))
        except RatedError:
            return 0
        return stars

    with ThreadPoolExecutor(5) as pool:
        (winner,) = [stars for stars in pool.map(rate, range(1, 6)) if stars]
    assert store.session("s1").rating.stars == winner
    assert [each.text for each in store.proposals()] == [f"as {winner} said"]


def test_a_session_that_does_not_exist(store):
    """Rating or reading an unknown session says so, and leaves nothing."""
    for action in (lambda: store.rate("nobody", BAD), lambda: store.session("nobody")):
        with pytest.raises(UnknownSessionError, match="no session 'nobody'"):
            action()
    assert store.proposals() == []


def test_stars_outside_the_scale(store, make):
    """The database itself refuses six stars."""
    store.keep(make())
    with pytest.raises(StoreError, match="6 stars"):
        store.rate("s1", Rating(stars=6))
    assert store.session("s1").rating is None


def test_a_correction_waits_for_review(store, make):
    """What a user wrote is no correction until a person accepted it."""
    store.keep(make())
    store.rate("s1", BAD)
    assert store.session("s1").correction is None
    (proposal,) = store.proposals()
    assert (proposal.session, proposal.source, proposal.text) == ("s1", "user", "3 heads, 1 tail")
    store.decide(proposal.id, "accepted")
    assert store.session("s1").correction == "3 heads, 1 tail"
    assert store.proposals() == []


def test_an_edited_correction(store, make):
    """An edit is what is learned from."""
    store.keep(make())
    store.rate("s1", BAD)
    store.decide(store.proposals()[0].id, "edited", "3 heads, 1 tail\nsure")
    assert store.session("s1").correction == "3 heads, 1 tail\nsure"


def test_a_rejected_correction(store, make):
    """What was rejected is no correction, and is neither decided nor proposed again."""
    store.keep(make())
    store.rate("s1", BAD)
    (proposal,) = store.proposals()
    store.decide(proposal.id, "rejected")
    store.propose([("s1", "sibling", proposal.text)])
    assert (store.session("s1").correction, store.proposals()) == (None, [])
    with pytest.raises(DataError, match=f"no proposal {proposal.id}"):
        store.decide(proposal.id, "accepted")


def test_a_corrected_session_has_no_more_proposals(store, make):
    """Once one proposal was accepted, the session's others do not wait any more."""
    store.keep(make())
    store.rate("s1", BAD)
    store.propose([("s1", "sibling", "1 head"), ("s1", "sibling", "1 head")])
    first, second = store.proposals()
    store.decide(second.id, "accepted")
    assert (first.source, second.source, store.proposals()) == ("user", "sibling", [])


def test_without_review(settings, make):
    """With ``review=none`` a user's correction is learned from at once."""
    trusting = type(settings)(url=settings.url, folder=settings.folder, review="none").open()
    trusting.keep(make())
    trusting.rate("s1", BAD)
    assert (trusting.session("s1").correction, trusting.proposals()) == ("3 heads, 1 tail", [])
    trusting.close()


def test_sessions_by_version_and_time(store, make):
    """Sessions are found by the version that answered, and the latest come first."""
    for number in range(4):
        time = f"2026-03-0{number + 1}T11:00:00.000+00:00"
        store.keep(make(f"s{number}", time=time, answered=f"ocr@{number % 2}"))
    assert [each.id for each in store.all()] == ["s0", "s1", "s2", "s3"]
    assert [each.id for each in store.all(answered="ocr@1")] == ["s1", "s3"]
    assert [each.id for each in store.latest(2)] == ["s3", "s2"]


def test_ratings_are_told(settings, make):
    """Whoever asked to be told learns of each rating after it was kept, by its kind; a failed one is not told."""
    told = []
    store = settings.open(lambda *what: told.append((*what, store.session("s1").rating is not None)))
    store.keep(make(status="error"))
    store.rate("s1", BAD)
    with pytest.raises(RatedError):
        store.rate("s1", BAD)
    store.close()
    assert told == [("ocr@7", 1, "implicit", False), ("ocr@7", 2, "explicit", True)]


def test_a_client_that_left_implies_nothing(store, make):
    """A cancelled session is kept without a rating."""
    store.keep(make(status="cancelled"))
    assert store.session("s1").implied is None


def test_many_threads(store, make):
    """Sessions that many threads keep at once are all there."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: store.keep(make(f"s{number:03d}")), range(64)))
    assert [each.id for each in store.all()] == [f"s{number:03d}" for number in range(64)]


@pytest.mark.parametrize("prefix", ["cmpl-", "chatcmpl-"])
def test_an_answers_id_is_its_sessions(store, make, prefix):
    """What OpenAI's clients call an answer rates its session."""
    store.keep(make("s1"))
    assert store.rate(f"{prefix}s1", Rating(stars=2)).id == "s1"
    assert store.session("s1").rating == Rating(stars=2)


def test_proposals_come_with_their_sessions(file, make):
    """Whatever the number of proposals, they and their sessions are read by two queries."""
    for number in range(5):
        file.keep(make(f"s{number}"))
        file.rate(f"s{number}", Rating(stars=1, correction=f"c{number}"))
    statements = []
    sa.event.listen(file.database.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))
    found = file.proposed(lambda session: session.id != "s3")
    assert [(proposal.text, session.id) for proposal, session in found] == [
        (f"c{number}", f"s{number}") for number in (0, 1, 2, 4)
    ]
    assert sum(each.lstrip().startswith("SELECT") for each in statements) == 2


def test_what_a_judge_says_is_no_rating(file, make):
    """A judge's score of a served session is found with its session, beside what was imported, and rates nothing."""
    file.keep(make("s1"))
    before = file.session("s1")
    said = [
        Assessment(id="1", source="judge", by="m", kind="cost", name="score:0", value={"calls": 1}),
        Assessment(id="2", source="judge", by="m", kind="feedback", name="score:0", value=1, rationale="why"),
    ]
    file.assess("s1", said)
    assert file.said("s1") == said
    assert file.judged() == [("s1", each) for each in said]
    assert file.session("s1") == before
    assert file.all(rated_below=5) == []


def test_what_was_said_elsewhere_is_kept_apart_from_ratings(store, make):
    """Assessments of an imported session come back in their order, make no rating, and go with their session."""
    said = [
        Assessment(id="1", source="judge", by="gpt", kind="feedback", name="good", value={"a": [True]}, rationale="\0"),
        Assessment(id="2", source="code", by="", kind="feedback", name="n", value=None, time="2026-03-02T11:00:00Z"),
    ]
    assert store.insert(make("s1"), "the right answer", said)
    assert not store.insert(make("s1"), "another", said)
    assert store.said("s1") == said
    assert store.session("s1").rating is None
    assert [(one.text, one.source) for one in store.proposals()] == [("the right answer", "user")]
    with store.database.write() as connection:
        connection.exec_driver_sql("DELETE FROM corrections")
        connection.exec_driver_sql("DELETE FROM sessions")
    assert store.said("s1") == []
