"""What a ledger says of a moment."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.registry.alias_history import ActiveVersion, active_version, decided
from loraloop.registry.ledger import Entry

START = datetime.fromisoformat("2026-11-20T10:00:00+00:00")


def story(*events: tuple[str, int | None, str | None, dict]) -> list[Entry]:
    """Entries of a ledger, a minute after each other."""
    return [
        Entry(
            time=(START + timedelta(minutes=minute)).isoformat(timespec="microseconds"), event=event, version=version,
            alias=alias, reason=f"reason {minute}", numbers=numbers, previous="", sha256="",
        )
        for minute, (event, version, alias, numbers) in enumerate(events)
    ]  # fmt: skip


def at(entries: list[Entry], minute: float, alias: str = "champion") -> ActiveVersion | None:
    """What served so many minutes after the start."""
    return active_version(entries, alias, START + timedelta(minutes=minute))


FIRST = {"rollout": "r1", "share": 0.15, "policy": "default"}
LOOP = story(
    ("register", 1, "candidate", {}),
    ("promote", 1, "champion", {}),
    ("trigger", 1, None, {"policy": "default"}),
    ("register", 2, "candidate", {}),
    ("rollout", 2, "canary", FIRST),
    ("gate", 3, None, {}),
    ("promote", 2, "champion", FIRST),
)


def test_why_a_version_served():
    """The entry that brought an alias to its version is found at any time after it, and none before."""
    assert at(LOOP, 0.9) is None
    assert (at(LOOP, 1).version, at(LOOP, 5.9).entry.reason) == (1, "reason 1")
    assert (at(LOOP, 6).version, at(LOOP, 6).entry.numbers["policy"]) == (2, "default")
    assert at(LOOP, 4, "canary").version == 2


def test_what_was_tried_beside_it():
    """A rollout is beside the stable version from the entry that began it to the one that ended it."""
    assert at(LOOP, 3.9).canary is None
    assert [at(LOOP, minute).canary.version for minute in (4, 5.9)] == [2, 2]
    assert at(LOOP, 6).canary is None


@pytest.mark.parametrize("event", ["rollback", "stop"])
def test_a_rollout_that_ended_otherwise(event):
    """A rollback and a stop end the rollout that they name, and no other."""
    entries = [*LOOP[:5], *story((event, 2, None, {"rollout": "r0"}), (event, 2, None, FIRST))]
    for minute, entry in enumerate(entries):
        object.__setattr__(entry, "time", (START + timedelta(minutes=minute)).isoformat())
    assert at(entries, 5.5).canary.version == 2
    assert at(entries, 6).canary is None
    assert at(entries, 6).version == 1


def test_a_champion_moved_by_hand_ends_a_rollout():
    """A server follows the alias: at another version there is nothing beside it, at the same one nothing changes."""
    moved = story(*[("register", 1, "champion", {}), ("rollout", 2, None, FIRST), ("promote", 1, "champion", {})])
    assert (at(moved, 2).canary.version, at(moved, 2).entry.reason) == (2, "reason 0")
    moved = story(*[("register", 1, "champion", {}), ("rollout", 2, None, FIRST), ("observed", 5, "champion", {})])
    assert (at(moved, 2).version, at(moved, 2).canary) == (5, None)


def test_a_move_that_was_told_afterwards():
    """Where a process moved the alias and ended before it said so, the decision that was told later is the reason."""
    late = story(
        ("promote", 1, "champion", {}),
        ("observed", 2, "champion", {}),
        ("promote", 3, None, FIRST),
        ("promote", 2, None, FIRST),
    )
    assert [at(late, minute).why.reason for minute in (0, 1, 2, 3)] == ["reason 0", "reason 1", "reason 1", "reason 3"]
    assert at(late, 3).entry.reason == "reason 1"
    assert at(LOOP, 5).why == at(LOOP, 5).entry


def test_an_alias_that_was_taken_away():
    """Nothing served after an alias was removed, and the entry says why."""
    entries = story(("promote", 1, "champion", {}), ("observed", None, "champion", {}))
    assert (at(entries, 1).version, at(entries, 1).entry.reason) == (None, "reason 1")


def test_a_decision_counts_from_when_it_was_taken():
    """What was told late began and ended a rollout when it was decided; an alias moves when its entry is written."""
    early = {"decided": (START + timedelta(minutes=1)).isoformat()}
    first = ("promote", 1, "champion", {})
    late = story(first, ("gate", 2, None, {}), ("rollout", 2, "canary", FIRST | early))
    assert [at(late, minute).canary is not None for minute in (0.9, 1, 2)] == [False, True, True]
    assert at(late, 1, "canary") is None
    late = story(first, ("rollout", 2, "canary", FIRST), ("gate", 3, None, {}), ("rollback", 2, None, FIRST | early))
    assert at(late, 2).canary is None
    late = story(first, ("gate", 2, None, {}), ("promote", 2, "champion", FIRST | early))
    assert [at(late, minute).version for minute in (1, 2)] == [1, 2]
    assert decided(late[2]) == START + timedelta(minutes=1)


@pytest.mark.parametrize("said", ["yesterday", 3, None, "2031-01-01T00:00"])
def test_a_time_of_decision_that_cannot_be(said):
    """What is no time, or one after the entry was written, leaves the entry's own."""
    (entry,) = story(("gate", 1, None, {"decided": said}))
    assert decided(entry) == START


@given(st.lists(st.tuples(st.sampled_from([1, 2, None]), st.sampled_from(["champion", "canary", None])), max_size=12))
def test_the_last_move_of_the_alias_decides(moves):
    """At every entry's time, of any story, the version is that of the last entry that names the alias."""
    entries = story(*(("promote", version, alias, {}) for version, alias in moves))
    for number, entry in enumerate(entries, 1):
        found = active_version(entries, "champion", datetime.fromisoformat(entry.time))
        named = [version for version, alias in moves[:number] if alias == "champion"]
        assert (found.version if found else None) == (named[-1] if named else None)
