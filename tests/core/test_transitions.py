"""The transition table: what follows from it, and that the program and the table have the same events."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loraloop.core import transitions
from loraloop.core.transitions import CANARY, ENDS, OPEN, SERVED, TABLE, EventName, Mover, State, find

SOURCE = Path(__file__).parents[2] / "src" / "loraloop" / "workflows" / "retraining"


def test_every_state_is_open_or_an_end():
    """Each state but ``idle`` is either one that a cycle leaves or one that it ends in, and all of them are reached."""
    assert {*OPEN, *ENDS, "idle"} == set(get_args(State)) == {row.target for row in TABLE}
    assert not {*OPEN} & {*ENDS}


def test_every_open_state_leads_to_every_kind_of_end():
    """From each open state a cycle comes to an end in which nothing was promoted, and to a promotion."""
    for state in OPEN:
        reached, waiting = set[str](), [state]
        while waiting:
            at = waiting.pop()
            for row in TABLE:
                if row.source == at and row.target not in reached:
                    reached.add(row.target)
                    waiting.append(row.target)
        assert {"promoted", "stopped"} <= reached


def test_a_state_and_an_event_have_one_next_state():
    """Rows of the same state and event lead to the same state, so that the event says where a cycle goes."""
    for row in TABLE:
        same = [other for other in TABLE if (other.source, other.event) == (row.source, row.event)]
        assert {(other.target, other.alert) for other in same} == {(row.target, row.alert)}


def test_a_rollout_begins_and_ends_with_its_states():
    """A rollout begins with a step into ``canary``, and ends with a step from it or ``promoting`` into an end."""
    for row in TABLE:
        assert (row.rollout == "begins") == (row.target == "canary") == (row.alias == CANARY)
        assert (row.rollout == "ends") == (row.source in ("canary", "promoting") and row.target in ENDS)
        assert (row.rollout == "won") == (row.target == "promoting")


def test_people_are_alerted_to_every_end_but_a_promotion():
    """Every step into an end without a promotion alerts people, and so does a rollback of the champion."""
    for row in TABLE:
        assert row.alert == ((row.target in ENDS and row.target != "promoted") or row.target == "idle")


def test_what_other_modules_read_from_the_table():
    """The events that end a rollout and those that move the champion are the table's."""
    assert {"promote", "rollback", "stop"} == transitions.ROLLOUT_OVER
    assert {"promote", "rollback"} == transitions.MOVES_SERVED
    assert {row.alias for row in TABLE} == {None, SERVED, CANARY}


def test_the_table_uses_every_name():
    """Every event name and every mover that the types allow stands in the table."""
    used = {row.event for row in TABLE} | {row.preceded_by for row in TABLE}
    assert used - {None} == set(get_args(EventName))
    assert {row.mover for row in TABLE} == set(get_args(Mover))


def test_the_program_has_the_events_of_the_table():
    """The events that the retraining workflow writes by name are those of the table, no more and no fewer."""
    found = {"rollback", "stop"}  # what a canary's verdict is called is what its event is called
    for path in SOURCE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf8"))):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func).rpartition(".")[2]
            names = [each.value for each in node.keywords if each.arg == "name" and called == "Event"]
            names += node.args[1:2] if ast.unparse(node.func) == "self.cycles.end" else []
            found |= {each.value for each in names if isinstance(each, ast.Constant)}
    assert found == set(get_args(EventName))


@given(st.sampled_from([*get_args(State)]), st.sampled_from([*get_args(EventName), None]), st.booleans())
def test_a_step_that_is_not_in_the_table_is_an_error(source, event, alias):
    """A step is found exactly if the table has a row with its state, its event and whether it moves an alias."""
    rows = [row for row in TABLE if (row.source, row.event, row.alias is not None) == (source, event, alias)]
    if rows:
        assert find(source, event, alias=alias) == rows[0]
    else:
        with pytest.raises(ValueError, match=f"state {source} has no "):
            find(source, event, alias=alias)


def test_an_event_that_does_not_precede_another_is_an_error():
    """Only a refusal by the gate is preceded by another event, the gate's."""
    assert find("trained", "refuse", preceded_by="gate").target == "refused"
    with pytest.raises(ValueError, match="state triggered has no event refuse after gate"):
        find("triggered", "refuse", preceded_by="gate")
