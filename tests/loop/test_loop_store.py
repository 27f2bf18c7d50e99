"""The contract of the loop's store, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.loop.cycle import ENDS, WAYS, Cycle, Event
from loraloop.loop.store import LoopStore, MovedError

MODEL = "loraloop-ocr"
TRIGGER = Event(event="trigger", version=1, reason="rated 2.0", numbers={"mean": 2.0, "each": [1, 3]})
ROLLOUT = Event(event="rollout", version=2, reason="15%", alias="canary")
WAY = ("prepared", "trained", "registered")


def begun(loop: LoopStore, role: str = "validator", model: str = MODEL) -> Cycle:
    return loop.begin(role, model, 1, "default", TRIGGER)


def rolling(loop: LoopStore, role: str = "validator", model: str = MODEL) -> Cycle:
    cycle = begun(loop, role, model)
    for state in WAY:
        cycle = loop.advance(cycle, state, candidate=2)
    return loop.roll_out(cycle, 0.15, ROLLOUT)


def test_a_cycle_begins_with_its_decision(loop):
    """A cycle and the decision that began it are there together, and the decision knows role, policy and cycle."""
    cycle = begun(loop)
    assert (cycle.state, cycle.number, cycle.kind, cycle.champion, cycle.ended) == ("triggered", 1, "retrain", 1, None)
    assert loop.open("validator") == cycle
    (pending,) = loop.untold(MODEL)
    assert pending.decided.numbers == {
        **TRIGGER.numbers, "decision": pending.id, "role": "validator", "policy": "default", "cycle": cycle.id,
        "decided": cycle.began,
    }  # fmt: skip


def test_a_role_has_one_open_cycle(loop):
    """A second cycle is refused while one is open, also one that was chosen by hand, and allowed once it is over."""
    cycle = begun(loop)
    with pytest.raises(MovedError, match="validator has a cycle already"):
        begun(loop)
    with pytest.raises(MovedError, match="validator has a cycle already"):
        loop.choose("validator", MODEL, 1, 2, "default", 0.15, ROLLOUT)
    assert begun(loop, "actor", "loraloop-action").number == 1
    loop.advance(cycle, "refused")
    assert begun(loop).number == 2


def test_a_step_is_taken_once(loop):
    """Of two that read the same state one takes the cycle on; the other changes nothing, decisions included."""
    cycle = begun(loop)
    made = loop.advance(cycle, "prepared", Event(event="corrective", version=1, reason="made"))
    with pytest.raises(MovedError, match="is not triggered any more"):
        loop.advance(cycle, "prepared", Event(event="corrective", version=1, reason="made twice"))
    assert loop.open("validator") == made
    assert [each.decided.reason for each in loop.untold(MODEL)] == ["rated 2.0", "made"]


def test_threads_that_begin_at_once_begin_one(loop):
    """Eight threads that begin a role's cycle at once make one cycle with one decision."""
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
    assert len(loop.untold(MODEL)) == 1


@given(st.sampled_from(sorted(WAYS)), st.sampled_from(sorted({*WAYS, *ENDS})))
def test_a_way_that_is_not_there_is_an_error(state, to):
    """A cycle moves only along the ways of its state; anything else is a mistake in the program, found at once."""
    values = dict.fromkeys(Cycle.__dataclass_fields__) | {"state": state}
    if to not in WAYS[state]:
        with pytest.raises(ValueError, match=f"does not go from {state} to {to}"):
            LoopStore.advance(None, Cycle(**values), to)


def test_a_rollout_runs_from_one_transaction_to_another(loop):
    """A rollout is told to servers from the step that begins it to the one that ends the cycle, and not after."""
    assert loop.rollouts() == []
    cycle = rolling(loop)
    (running,) = loop.rollouts()
    assert (running.id, running.model, running.stable, running.canary) == (cycle.rollout, MODEL, 1, 2)
    assert (running.role, running.share) == ("validator", 0.15)
    loop.advance(cycle, "rolled_back", Event(event="rollback", version=2, reason="worse", alert=True))
    assert loop.rollouts() == []
    assert loop.rollout(running.id) == running


def test_a_model_has_one_rollout(loop):
    """Two roles of one model cannot have rollouts at once: the second is refused and stays where it was."""
    rolling(loop)
    with pytest.raises(MovedError, match="loraloop-ocr has a running rollout already"):
        rolling(loop, role="actor")
    assert loop.open("actor").state == "registered"
    assert len(loop.rollouts()) == 1


def test_a_choice_begins_with_its_rollout_or_not_at_all(loop):
    """A version that a person chose is rolled out in the step that begins its cycle; refused, it leaves no cycle."""
    cycle = loop.choose("validator", MODEL, 1, 2, "default", 0.15, ROLLOUT)
    assert (cycle.state, cycle.rollout) == ("canary", loop.rollouts()[0].id)
    with pytest.raises(MovedError, match="loraloop-ocr has a running rollout already"):
        loop.choose("actor", MODEL, 1, 2, "default", 0.15, ROLLOUT)
    assert [each.id for each in loop.unended()] == [cycle.id]


def test_a_decision_names_the_policy_in_force(loop):
    """A cycle that began under one policy goes on under another: each decision names the one that it was taken by."""
    cycle = begun(loop)
    LoopStore(loop.database, "strict").advance(cycle, "refused", Event(event="refuse", version=1, reason="few"))
    assert [each.decided.numbers["policy"] for each in loop.untold(MODEL)] == ["default", "strict"]
    assert loop.cycle(cycle.id).policy == "default"


def test_a_decision_waits_until_it_is_told_everywhere(loop):
    """Decisions wait in their order, remember where they were told, and are gone once they are done."""
    cycle = begun(loop)
    loop.advance(cycle, "prepared", Event(event="corrective", version=1, reason="made"))
    first, second = loop.untold(MODEL)
    loop.told(first, "ledger")
    assert [each.told for each in loop.untold(MODEL)] == [("ledger",), ()]
    loop.told(first, "tracker", done=True)
    assert [each.id for each in loop.untold(MODEL)] == [second.id]
    assert loop.untold("loraloop-action") == []


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
    """Cycles by outcome, the state, decisions, the last tick, the ledger and both arms of a rollout are told."""
    loop.ticked("validator", MODEL, intact=True)
    assert ("loraloop_loop_state", {"role": "validator", "state": "idle"}, 1.0) in loop.stats()
    loop.advance(begun(loop), "failed")
    cycle = rolling(loop)
    arms = {"stable": {"sessions": 90, "success": 0.9, "stars": None}, "canary": {"sessions": 10, "success": 1.0}}
    loop.judge(cycle.rollout, {"action": "wait", "arms": arms})
    stats = {(name, *labels.values()): value for name, labels, value in loop.stats()}
    assert stats["loraloop_loop_cycles_total", "validator", "failed"] == 1
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


def test_a_canary_that_failed_is_told_of_for_a_day(loop):
    """After a rollback the share is zero, and the canary that failed is still told of, so that an alert can rise."""
    cycle = rolling(loop)
    loop.judge(cycle.rollout, {"action": "rollback", "arms": {}})
    loop.advance(cycle, "rolled_back")
    loop.ticked("validator", MODEL, intact=False)
    stats = {(name, *labels.values()): value for name, labels, value in loop.stats()}
    assert stats["loraloop_canary_failing", "validator"] == 1
    assert stats["loraloop_canary_share", "validator"] == 0
    assert stats["loraloop_ledger_intact", MODEL] == 0
