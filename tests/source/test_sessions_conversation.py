"""Sessions as conversations that call tools."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from loraloop.source.sessions import Sessions

OPEN = {"name": "open", "arguments": {"report": "March"}}
PRINT = {"name": "print", "arguments": {"pages": 80}}
EXPORT = {"name": "export", "arguments": {"format": "csv"}}
SAVE = {"name": "save", "arguments": {}}


def steps(*chosen):
    return [
        {"tool_calls": list(calls), "screenshot_summary": f"screen {number}"} for number, calls in enumerate(chosen, 1)
    ]


def examples(folder: Path, **sessions):
    """The examples of the sessions, by their ids."""
    for name, said in sessions.items():
        (folder / name).mkdir()
        session = {"agent": "actor", "task": "Export it", "instruction": "Act."} | said
        (folder / name / "session.json").write_text(json.dumps(session))
    found = Sessions(path=folder, form="calls", min_corrective=0).collect()
    return {example.provenance.session_id: example for example in found.examples}


def turns(example):
    return [
        (message.role, [call.name for call in message.tool_calls] or message.text, message.is_target)
        for message in example.messages
    ]


BEFORE = [
    ("system", "Act.", False),
    ("user", "Export it\nScreen: screen 1", False),
    ("assistant", ["open"], False),
    ("tool", "screen 2", False),
]


def test_a_bad_session_takes_the_action_of_its_sibling_at_the_failing_step(tmp_path):
    """The steps before it are a past that is not learned, and the sibling's call at the first difference is learned."""
    bad = {"user_rating": 1, "iterations": steps([OPEN], [PRINT], [SAVE])}
    good = {"user_rating": 5, "iterations": steps([OPEN], [EXPORT], [SAVE])}
    made = examples(tmp_path, bad=bad, good=good)
    assert turns(made["bad"]) == [*BEFORE, ("assistant", ["export"], True)]
    assert turns(made["good"]) == [
        *BEFORE[:2],
        ("assistant", ["open"], True),
        ("tool", "screen 2", False),
        ("assistant", ["export"], True),
        ("tool", "screen 3", False),
        ("assistant", ["save"], True),
    ]


def test_a_bad_session_takes_the_action_that_a_rule_chooses(tmp_path):
    """An alternative that was recorded takes the place of the failed call, in the step that made it."""
    wrong = PRINT | {"error": "no paper", "alternatives": [EXPORT]}
    bad = {"user_rating": 1, "what_went_wrong": ["Wrong action selected"], "iterations": steps([OPEN], [wrong])}
    example = examples(tmp_path, bad=bad)["bad"]
    assert turns(example) == [*BEFORE, ("assistant", ["export"], True)]
    assert [call.id for message in example.messages for call in message.tool_calls] == ["call_1", "call_2"]


def test_what_follows_a_corrected_call_in_later_steps_is_not_its_turn(tmp_path):
    """A rule that corrects an early call and keeps the later ones teaches the corrected call alone."""
    slow = {"name": "wait", "arguments": {"seconds": 4}, "error": "timeout"}
    bad = {"user_rating": 1, "what_went_wrong": ["Timeout"], "iterations": steps([OPEN], [slow], [SAVE])}
    example = examples(tmp_path, bad=bad)["bad"]
    assert turns(example) == [*BEFORE, ("assistant", ["wait"], True)]
    assert example.messages[-1].tool_calls[0].arguments == {"seconds": 8}


def test_words_of_a_person_stay_words(tmp_path):
    """A correction in words is the answer to the question as it is in the form of texts."""
    bad = {"user_rating": 1, "correction": "export(csv)", "iterations": steps([OPEN], [PRINT])}
    assert turns(examples(tmp_path, bad=bad)["bad"])[-1] == ("assistant", "export(csv)", True)


def test_calls_are_right_when_name_and_arguments_are(tmp_path):
    """An answer is right where the calls in it are those of the target, whatever the order of their arguments."""
    bad = {"user_rating": 1, "iterations": steps([PRINT])}
    good = {"user_rating": 5, "iterations": steps([{"name": "export", "arguments": {"a": 1, "b": 2}}])}
    example = examples(tmp_path, bad=bad, good=good)["bad"]
    source = Sessions(path=tmp_path)
    assert source.correct(example, '<tool_call>{"arguments": {"b": 2, "a": 1}, "name": "export"}</tool_call>')
    assert not source.correct(example, '<tool_call>{"name": "export", "arguments": {}}</tool_call>')
    assert not source.correct(example, "")


def test_pairs_have_no_calls(tmp_path):
    """Preference pairs in the form of calls are refused with the setting to write."""
    with pytest.raises(ValidationError, match="write form=text"):
        Sessions(path=tmp_path, form="calls", pairs=True)
