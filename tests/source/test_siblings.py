"""Attempts at one task, of which those that failed take a sibling's action."""

import json

import pytest
from pydantic import ValidationError

from loraloop.errors import DataError
from loraloop.records import Provenance
from loraloop.source import columns
from loraloop.source.columns import Columns


def log(task, reward, *acts):
    """An attempt whose answers are calls of ``look`` at a place, or words where they begin with a capital."""
    said = [{"role": "user", "content": f"task {task}"}]
    for place in acts:
        if place[0].isupper():
            said += [{"role": "assistant", "content": place}, {"role": "user", "content": "go on"}]
        else:
            call = {"id": f"{task}{len(said)}", "function": {"name": "look", "arguments": json.dumps({"at": place})}}
            said += [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": "lit"}]
    return {"traj": said, "task_id": task, "reward": reward}


def read(*rows):
    quarantined = []
    records = ((f"row {index}", row, Provenance(source="files", index=index)) for index, row in enumerate(rows))
    mapped = Columns(messages="traj", origin="task_id", reward="reward")
    found, _ = columns.read("logs", records, mapped, "", quarantined)
    return found.examples, [(each.item, each.reason) for each in quarantined]


def calls(message):
    return [call.arguments["at"] for call in message.tool_calls] if message is not None else None


def test_a_failed_attempt_takes_the_action_of_its_sibling_where_the_two_part(caplog):
    """Its own turns before are the past, the sibling's turn is learned over its own, and the counts are told."""
    with caplog.at_level("INFO"):
        (good, made, _), aside = read(
            log(1, 1.0, "Sure.", "a", "b"), log(1, 0.0, "Of course.", "a", "c", "d"), log(2, True, "a"), log(3, 0, "a")
        )
    assert [message.learned for message in good.messages if message.role == "assistant"] == [True] * 3
    assert [message.text for message in made.messages[:2]] == ["task 1", "Of course."]
    assert (calls(made.messages[-1]), calls(made.rejected)) == (["b"], ["c"])
    assert sum(message.is_target for message in made.messages) == 1
    assert (made.origin, made.provenance.index) == ("1", 1)
    assert aside == [("row 3", "reward 0, and no sibling succeeded")]
    assert "4 attempts: 2 succeeded, 1 failed and take a sibling's action, 1 failed and are set aside" in caplog.text


def test_the_sibling_that_goes_the_same_way_longest_counts():
    """Of several siblings that succeeded, the one that parts last gives the action."""
    examples, _ = read(log(1, 1, "x"), log(1, 1, "a", "b", "y"), log(1, 0, "a", "b", "z"))
    assert calls(examples[-1].messages[-1]) == ["y"]


def test_a_failed_attempt_without_another_action_is_set_aside():
    """One that made the calls of its siblings, one of no task and one whose reward is no number are named."""
    _, aside = read(log(1, 1, "a"), log(1, 0, "a", "B"), log(None, 1, "a"), log(None, 0, "b"), log(1, "fine", "a"))
    assert aside == [
        ("row 4", "the reward 'fine' is no number"),
        ("row 1", "reward 0, and every sibling that succeeded made its calls"),
        ("row 3", "reward 0, and no sibling succeeded"),
    ]


def test_a_reward_needs_an_origin_and_both_need_their_columns():
    """A reward without an origin, and a column that no row has, are refused with what to set."""
    with pytest.raises(ValidationError, match=r"reward=reward needs origin.*set source\.columns\.origin"):
        Columns(reward="reward")
    row = {"input": "q", "output": "a", "task": 1}
    records = [("row 0", row, Provenance(source="files"))]
    with pytest.raises(DataError, match=r"no column 'task_id' for source\.columns\.origin; the row has input"):
        columns.read("logs", records, Columns(origin="task_id"), "", [])
    found, _ = columns.read("logs", records, Columns(origin="task"), "", [])
    assert found.examples[0].origin == "1"
