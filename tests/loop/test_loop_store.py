"""The contract of the loop's store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace
from typing import get_args

import pytest

from loraloop.core.transitions import CANARY, ENDS, OPEN, SERVED, TABLE, EventName, Transition
from loraloop.loop.cycle import Cycle, Event
from loraloop.loop.store import LoopStore, MovedError

MODEL = "loraloop-ocr"
TRIGGER = Event(name="trigger", version=1, reason="rated 2.0", numbers={"mean": 2.0, "each": [1, 3]})
CORRECTIVE = Event(name="corrective", version=1, reason="made")
REFUSE = Event(name="refuse", version=None, reason="few")
ROLLOUT = Event(name="rollout", version=2, reason="15%", alias=CANARY)
PROMOTE = Event(name="promote", version=2, reason="it won", alias="champion")
ROLLBACK = Event(name="rollback", version=2, reason="worse")
WAY = (CORRECTIVE, Event(name="train", version=1, reason="40 rows"), Event(name="gate", version=2, reason="passed"))
ALIASES = {None: None, CANARY: CANARY, SERVED: "champion"}


def begun(loop: LoopStore, role: str = "validator", model: str = MODEL) -> Cycle:
    return loop.begin(role, model, 1, "default", TRIGGER)


def rolling(loop: LoopStore, role: str = "validator", model: str = MODEL) -> Cycle:
    return loop.roll_out(at(loop, "registered", role, model), 0.15, ROLLOUT)


def at(loop: LoopStore, state: str, role: str = "validator", model: str = MODEL) -> Cycle:
    """A cycle that came to a state by the shortest way."""
    cycle = begun(loop, role, model)
    for event in WAY:
        if cycle.state == state:
            return cycle
        cycle = loop.advance(cycle, event, candidate=2)
    if cycle.state != state:
        cycle = loop.roll_out(cycle, 0.15, ROLLOUT)
    if cycle.state != state:
        cycle = loop.advance(cycle, PROMOTE)
    return cycle


def step(loop: LoopStore, row: Transition, cycle: Cycle | None) -> Cycle | None:
    """Take the step of a row, by the method that the program takes it by."""
    event = row.event and Event(name=row.event, version=2, reason=row.when, alias=ALIASES[row.alias])
    if cycle is None:
        match row.event:
            case "trigger":
                return loop.begin("validator", MODEL, 1, "default", event)
            case "rollout":
                return loop.choose("validator", MODEL, 1, 2, "default", 0.15, event)
        return loop.record("validator", MODEL, "default", event) and None
    if row.rollout == "begins":
        return loop.roll_out(cycle, 0.15, event)
    before = [Event(name=row.preceded_by, version=None, reason="not passed")] if row.preceded_by else []
    return loop.advance(cycle, *before, *([event] if event else []))


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.source}-{row.event}-{row.mover}")
def test_the_store_takes_every_step_of_the_table(loop, row):
    """Each row leads to its state, records its events with alias and alert, and begins or ends its rollout."""
    cycle = at(loop, row.source) if row.source != "idle" else None
    before = len(loop.unpublished(MODEL))
    made = step(loop, row, cycle)
    assert (made.state if made else "idle") == row.target
    assert loop.open("validator") == (made if made and row.target not in ENDS else None)
    recorded = loop.unpublished(MODEL)[before:]
    expected = [(row.preceded_by, None, False)] if row.preceded_by else []
    expected += [(row.event, ALIASES[row.alias], row.alert)] if row.event else []
    assert [(each.event.name, each.event.alias, each.alert) for each in recorded] == expected
    assert [each.canary for each in loop.rollouts()] == [2] * (row.target in ("canary", "promoting"))


@pytest.mark.parametrize("state", OPEN)
def test_the_store_refuses_every_other_step(loop, state):
    """A step that no row has, by its event or by whether it moves an alias, is an error and changes nothing."""
    cycle = at(loop, state)
    recorded = loop.unpublished(MODEL)
    rows = {(row.event, row.alias is not None) for row in TABLE if row.source == state}
    for name, alias in itertools.product([None, *get_args(EventName)], [False, True]):
        if (name, alias) not in rows and (name or not alias):
            event = name and Event(name=name, version=2, reason="why", alias="champion" if alias else None)
            with pytest.raises(ValueError, match=f"state {state} has no "):
                loop.advance(cycle, *([event] if event else []))
    assert (loop.open("validator"), loop.unpublished(MODEL)) == (cycle, recorded)


def test_a_cycle_begins_with_its_event(loop):
    """A cycle and the event that began it are stored together, and the event knows role, policy and cycle."""
    cycle = begun(loop)
    assert (cycle.state, cycle.number, cycle.kind, cycle.champion, cycle.ended) == ("triggered", 1, "retrain", 1, None)
    assert loop.open("validator") == cycle
    (entry,) = loop.unpublished(MODEL)
    assert entry.event.numbers == {
        **TRIGGER.numbers, "decision": entry.id, "role": "validator", "policy": "default", "cycle": cycle.id,
        "decided": cycle.began,
    }  # fmt: skip


def test_a_role_has_one_open_cycle(loop):
    """A second cycle is refused while one is open, also one that was chosen by hand, and allowed once it is over."""
    cycle = begun(loop)
    with pytest.raises(MovedError, match="validator has an open cycle already"):
        begun(loop)
    with pytest.raises(MovedError, match="validator has an open cycle already"):
        loop.choose("validator", MODEL, 1, 2, "default", 0.15, ROLLOUT)
    assert begun(loop, "actor", "loraloop-action").number == 1
    loop.advance(cycle, REFUSE)
    assert begun(loop).number == 2


def test_a_step_is_taken_once(loop):
    """Of two processes that read the same state one takes the step; the other changes nothing and records nothing."""
    cycle = begun(loop)
    made = loop.advance(cycle, CORRECTIVE)
    with pytest.raises(MovedError, match="is no longer triggered"):
        loop.advance(cycle, replace(CORRECTIVE, reason="made twice"))
    assert loop.open("validator") == made
    assert [each.event.reason for each in loop.unpublished(MODEL)] == ["rated 2.0", "made"]


def test_threads_that_begin_at_once_begin_one(loop):
    """Eight threads that begin a role's cycle at once make one cycle with one event."""
    made, refused = [], []

    def begin() -> None:
        try:
            made.append(begun(loop))
        except MovedError as error:
            refused.append(error)

    threads = [threading.Thread(target=begin) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (1, 7)
    assert len(loop.unpublished(MODEL)) == 1


def test_a_rollout_runs_from_one_transaction_to_another(loop):
    """Servers see a rollout from the step that begins it to the one that ends the cycle, and not after."""
    assert loop.rollouts() == []
    cycle = rolling(loop)
    (running,) = loop.rollouts()
    assert (running.id, running.model, running.stable, running.canary) == (cycle.rollout, MODEL, 1, 2)
    assert (running.role, running.share) == ("validator", 0.15)
    loop.advance(cycle, ROLLBACK)
    assert loop.rollouts() == []
    assert loop.rollout(running.id) == running


def test_a_model_has_one_rollout(loop):
    """Two roles of one model cannot have rollouts at once: the second is refused, and its cycle does not change."""
    rolling(loop)
    with pytest.raises(MovedError, match="loraloop-ocr has a running rollout already"):
        rolling(loop, role="actor")
    assert loop.open("actor").state == "registered"
    assert len(loop.rollouts()) == 1


def test_a_chosen_version_begins_with_its_rollout_or_not_at_all(loop):
    """A version that a person chose is rolled out in the step that begins its cycle; refused, it leaves no cycle."""
    cycle = loop.choose("validator", MODEL, 1, 2, "default", 0.15, ROLLOUT)
    assert (cycle.state, cycle.rollout) == ("canary", loop.rollouts()[0].id)
    with pytest.raises(MovedError, match="loraloop-ocr has a running rollout already"):
        loop.choose("actor", MODEL, 1, 2, "default", 0.15, ROLLOUT)
    assert [each.id for each in loop.open_cycles()] == [cycle.id]


def test_an_event_names_the_policy_in_force(loop):
    """A cycle that began under one policy goes on under another: each event names the policy that decided it."""
    cycle = begun(loop)
    LoopStore(loop.database, "strict").advance(cycle, REFUSE)
    assert [each.event.numbers["policy"] for each in loop.unpublished(MODEL)] == ["default", "strict"]
    assert loop.cycle(cycle.id).policy == "default"


def test_an_event_waits_until_it_is_published_everywhere(loop):
    """Events wait in their order, keep where they are published, and leave the outbox once they are done."""
    cycle = begun(loop)
    loop.advance(cycle, CORRECTIVE)
    first, second = loop.unpublished(MODEL)
    loop.mark_published(first, "ledger")
    assert [each.published for each in loop.unpublished(MODEL)] == [("ledger",), ()]
    loop.mark_published(first, "tracker", done=True)
    assert [each.id for each in loop.unpublished(MODEL)] == [second.id]
    assert loop.unpublished("loraloop-action") == []


def test_a_claim_is_held_by_one(database):
    """Of two stores on one database one holds a claim; a name of its own, or the same one later, is free."""
    one, other = LoopStore(database), LoopStore(database)
    with one.claim("tick validator") as mine:
        assert mine
        with other.claim("tick validator") as theirs, other.claim("tick actor") as another:
            assert (theirs, another) == (False, True)
        with other.claim("tick validator", seconds=0.05) as theirs:
            assert not theirs
    with other.claim("tick validator", seconds=1) as theirs:
        assert theirs


def test_the_metrics_say_what_the_tables_hold(loop):
    """The metrics hold cycles by outcome, the state, events, the last tick, the ledger and a rollout's two arms."""
    loop.ticked("validator", MODEL, intact=True)
    assert ("loraloop_loop_state", {"role": "validator", "state": "idle"}, 1.0) in loop.stats()
    loop.advance(begun(loop), REFUSE)
    cycle = rolling(loop)
    arms = {"stable": {"sessions": 90, "success": 0.9, "stars": None}, "canary": {"sessions": 10, "success": 1.0}}
    loop.keep_verdict(cycle.rollout, {"action": "wait", "arms": arms})
    stats = {(name, *labels.values()): value for name, labels, value in loop.stats()}
    assert stats["loraloop_loop_cycles_total", "validator", "refused"] == 1
    assert stats["loraloop_loop_cycles_total", "validator", "promoted"] == 0
    assert stats["loraloop_loop_state", "validator", "canary"] == 1
    assert stats["loraloop_loop_decisions_total", "validator", "trigger"] == 2
    assert stats["loraloop_loop_tick_timestamp_seconds", "validator"] > 1.7e9
    assert stats["loraloop_ledger_intact", MODEL] == 1
    assert stats["loraloop_canary_share", "validator"] == 0.15
    assert stats["loraloop_canary_failing", "validator"] == 0
    assert stats["loraloop_canary_sessions", "validator", "stable"] == 90
    assert stats["loraloop_canary_success_ratio", "validator", "canary"] == 1
    assert ("loraloop_canary_stars", "validator", "stable") not in stats


def test_a_canary_that_failed_is_in_the_metrics_for_a_day(loop):
    """After a rollback the share is 0, and the metrics still have the canary that failed, so that an alert can fire."""
    cycle = rolling(loop)
    loop.keep_verdict(cycle.rollout, {"action": "rollback", "arms": {}})
    loop.advance(cycle, ROLLBACK)
    loop.ticked("validator", MODEL, intact=False)
    stats = {(name, *labels.values()): value for name, labels, value in loop.stats()}
    assert stats["loraloop_canary_failing", "validator"] == 1
    assert stats["loraloop_canary_share", "validator"] == 0
    assert stats["loraloop_ledger_intact", MODEL] == 0
