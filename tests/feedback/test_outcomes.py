"""What sessions say about the versions that answered them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core.durations import stamp
from loraloop.feedback import layout
from loraloop.feedback.schema import sessions
from loraloop.records import Outcome, Rating

DAY = "2026-03-02T11:{:02}:00.000+00:00"


@pytest.fixture
def filled(store, make):
    """Six sessions, a minute after each other: two versions, a rollout, three conversations, one client that left."""
    rows = [
        ("ocr@7", None, "a", "ann", "ok"),
        ("ocr@8", None, "a", "ann", "error"),
        ("ocr@7", "r1", "b", "bob", "timeout"),
        ("ocr@8", "r1", None, None, "ok"),
        ("ocr@8", "r1", "c", "ann", "cancelled"),
        ("ocr@7", "r1", "b", "bob", "ok"),
    ]
    for minute, (answered, rollout, conversation, client, status) in enumerate(rows):
        told = {"answered": answered, "rollout": rollout, "conversation": conversation, "client": client}
        store.keep(make(f"s{minute}", time=DAY.format(minute), status=status, **told))
    store.rate("s0", Rating(stars=2))
    store.rate("s3", Rating(stars=5))
    return store


def ids(outcomes: list[Outcome]) -> list[str]:
    """Which sessions."""
    return [each.session for each in outcomes]


def test_every_session_is_an_outcome(filled):
    """Conversation, rater, rollout, success and explicit stars are told; what nobody said is ``None``, no guess."""
    found = filled.outcomes()
    assert ids(found) == ["s0", "s1", "s2", "s3", "s4", "s5"]
    assert [each.success for each in found] == [True, False, False, True, None, True]
    assert [each.stars for each in found] == [2, None, None, 5, None, None]
    assert [each.rated is None for each in found] == [False, True, True, False, True, True]
    assert found[0].rated > found[5].time
    assert [each.conversation for each in found] == ["a", "a", "b", "s3", "c", "b"]
    assert [each.rater for each in found] == ["ann", "ann", "bob", None, "ann", "bob"]
    assert found[2] == Outcome(
        session="s2", time=DAY.format(2), conversation="b", rater="bob", answered="ocr@7", rollout="r1",
        success=False, stars=None, duration=1.0,
    )  # fmt: skip


def test_one_name_under_two_keys_is_two_people(file, make):
    """Whom a request names is told apart by its key: no client can rate away the opinions of another's people."""
    for number, key in enumerate((None, "app", "other")):
        file.keep(make(f"s{number}", time=DAY.format(number), client="ann", asked_key=key))
    assert [each.rater for each in file.outcomes()] == ["ann", "app/ann", "other/ann"]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"answered": "ocr@7"}, ["s0", "s2", "s5"]),
        ({"rollout": "r1"}, ["s2", "s3", "s4", "s5"]),
        ({"rollout": "r1", "answered": "ocr@8"}, ["s3", "s4"]),
        ({"rollout": "other"}, []),
        ({"since": "2026-03-02T11:04:00+00:00"}, ["s4", "s5"]),
        ({"since": "2026-03-02T11:04"}, ["s4", "s5"]),
        ({"since": "2026-03-02T13:04:00.000000+02:00"}, ["s4", "s5"]),
        ({"limit": 2}, ["s4", "s5"]),
        ({"answered": "ocr@8", "since": "2026-03-02T11:02:00Z", "limit": 1}, ["s4"]),
    ],
)
def test_some_of_them(filled, asked, found):
    """By version, rollout and time in any zone; a limit keeps the latest, and they still come oldest first."""
    assert ids(filled.outcomes(**asked)) == found


def test_those_that_were_rated_lately(filled):
    """Sessions that nobody rated, or not since a time, are not read."""
    rated = [each.session for each in filled.outcomes() if each.stars is not None]
    assert ids(filled.outcomes(rated_since="2026-01-01")) == rated
    assert 0 < len(rated) < len(filled.outcomes())
    assert filled.outcomes(rated_since="2100-01-01") == []


@given(st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)), st.timedeltas(timedelta(0), timedelta(days=1)))
def test_stamps_are_in_the_order_of_time(moment, later):
    """However a time is written, its stamp sorts as text where it sorts as a time, to the millisecond."""
    first, second = (each.replace(tzinfo=UTC) for each in (moment, moment + later))
    assert (stamp(first.isoformat()) <= stamp(second.isoformat())) == (first <= second)
    assert stamp(second.isoformat()) == second.isoformat(timespec="milliseconds")


@pytest.mark.parametrize("by", ["answered", "rollout"])
def test_an_index_finds_them(file, by):
    """A version's latest sessions, and a rollout's, come out of an index: others are not looked at."""
    statements = []
    sa.event.listen(file.database.engine, "before_cursor_execute", lambda *told: statements.append(told[2:4]))
    file.outcomes(**{by: "x"}, since="2026-03-02", limit=50)
    statement, parameters = statements[0]
    with file.database.read() as connection:
        plan = [row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
    assert plan[0] == f"SEARCH sessions USING INDEX ix_sessions_{by}_time ({by}=? AND time>?)"


def test_what_was_served_when_is_not_known(file, tmp_path):
    """An imported session without a time or a version says nothing about any version."""
    for name, text in (("dated", '{"task": "t", "created": "2026-03-02T11:00:00Z"}'), ("bare", '{"task": "t"}')):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "session.json").write_text(text)
    layout.load(file, tmp_path / "in")
    assert len(file.all()) == 2
    assert file.outcomes() == []


def test_exported_and_imported_they_say_the_same(filled, tmp_path):
    """Conversation, client and rollout travel with ``session.json``: another database has the same outcomes."""
    from loraloop.feedback.settings import Feedback

    assert layout.export(filled, tmp_path / "out") == (6, [])
    other = Feedback(folder=tmp_path / "other").open()
    assert layout.load(other, tmp_path / "out")[:2] == (6, 0)
    ours, theirs = filled.outcomes(), other.outcomes()
    other.close()
    unknown = {"s2", "s4"}  # session.json knows success and failure alone
    assert [each for each in ours if each.session not in unknown] == [
        each for each in theirs if each.session not in unknown
    ]
    assert [(each.conversation, each.rater, each.rollout) for each in ours] == [
        (each.conversation, each.rater, each.rollout) for each in theirs
    ]


@pytest.mark.parametrize("label", ['"a\\u0000b"', f'"{"c" * 257}"', '""', "5"])
def test_labels_that_no_server_gave(file, tmp_path, label):
    """A conversation that no request could have named sets the session aside."""
    (tmp_path / "in" / "bad").mkdir(parents=True)
    (tmp_path / "in" / "bad" / "session.json").write_text(f'{{"task": "t", "conversation": {label}}}')
    new, _, (broken,) = layout.load(file, tmp_path / "in")
    assert (new, broken.item) == (0, "bad")
    assert "conversation" in broken.reason


def imported(store, folder, **files):
    """Outcomes of sessions that are read from ``session.json`` files."""
    for name, more in files.items():
        (folder / "in" / name).mkdir(parents=True)
        (folder / "in" / name / "session.json").write_text(
            f'{{"task": "t", "lora_version": "ocr@7", "user_rating": 1, {more}}}'
        )
    layout.load(store, folder / "in")
    return store.outcomes()


def test_imported_times_are_the_stores(file, tmp_path):
    """Whatever zone a log names, its times come into UTC; one that does not say when it was rated was so at once."""
    found = imported(
        file, tmp_path,
        east='"created": "2026-03-02T01:00:00+05:00", "rated": "2026-03-02T01:00:00"',
        utc='"created": "2026-03-01T19:30"',
    )  # fmt: skip
    assert [(each.session, each.time, each.rated) for each in found] == [
        ("utc", "2026-03-01T19:30:00.000+00:00", "2026-03-01T19:30:00.000+00:00"),
        ("east", "2026-03-01T20:00:00.000+00:00", "2026-03-02T01:00:00.000+00:00"),
    ]


def test_times_that_were_imported_as_they_came(file, tmp_path):
    """A time that an earlier version kept unread is left out where it is none, and in UTC where it is one."""
    imported(file, tmp_path, odd='"created": "2026-03-01T19:30"', east='"created": "2026-03-01T19:30"',
             utc='"created": "2026-03-01T19:30"')  # fmt: skip
    with file.database.write() as connection:
        for name, time in (("odd", "yesterday"), ("east", "2026-03-01T20:00:00+05:00")):
            connection.execute(sessions.update().where(sessions.c.id == name).values(time=time))
    assert [(each.session, each.time) for each in file.outcomes()] == [
        ("east", "2026-03-01T15:00:00.000+00:00"),
        ("utc", "2026-03-01T19:30:00.000+00:00"),
    ]
