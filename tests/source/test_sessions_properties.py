"""What holds of any set of valid sessions, whatever they contain."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core import session_file
from loraloop.core.same_task import collapse
from loraloop.errors import DataError
from loraloop.records import Collection, Session
from loraloop.source.sessions import Sessions
from loraloop.source.sessions.calls import calls
from loraloop.source.sessions.text import answer, render

WORDS = st.sampled_from(["ocr", "read", "click", "save", "wait", "30", "A 12", "a, b", "", "[manual review needed]"])
ARGUMENTS = st.dictionaries(
    st.sampled_from(["region", "scale", "timeout", "target"]),
    WORDS | st.integers(-2, 90) | st.booleans() | st.none() | st.floats(0, 90) | st.lists(WORDS, max_size=4),
    max_size=3,
)
NAMES = WORDS.filter(bool)
CALLS = st.fixed_dictionaries(
    {"name": NAMES},
    optional={
        "arguments": ARGUMENTS,
        "confidence": st.floats(0, 100) | st.none(),
        "seconds": st.floats(0, 1e6),
        "error": st.sampled_from([None, "", "timed out"]),
        "alternatives": st.lists(st.fixed_dictionaries({"name": NAMES, "arguments": ARGUMENTS}), max_size=3),
    },
)
STEPS = st.fixed_dictionaries({}, optional={"tool_calls": st.lists(CALLS, max_size=3), "screenshot_summary": WORDS})
ISSUES = st.sampled_from(["OCR confidence low", "wrong_action_selected", "Timeout", "Glitch"])
SESSIONS = st.fixed_dictionaries(
    {"task": st.sampled_from(["Save", "save.", "Open the safe"]), "user_rating": st.none() | st.integers(1, 5)},
    optional={
        "agent": st.sampled_from([None, "actor", "coordinator"]),
        "iterations": st.none() | st.lists(STEPS, max_size=3),
        "what_went_wrong": st.none() | st.lists(ISSUES, max_size=3),
        "answer": WORDS | st.none(),
        "correction": WORDS | st.none(),
        "success": st.booleans() | st.none(),
        "duration": st.floats(0, 1e6) | st.none(),
    },
)
SETS = st.lists(SESSIONS, min_size=1, max_size=12)


def validated(records: list[dict[str, Any]]) -> dict[str, Session]:
    return {
        name: session_file.parse(json.dumps(record).encode()).session(name)
        for nth, record in enumerate(records)
        for name in [f"s{nth:02d}"]
    }


@pytest.mark.parametrize("pairs", [False, True])
@settings(max_examples=150, deadline=None)
@given(records=SETS)
def test_every_session_is_accounted_for_exactly_once(pairs: bool, records: list[dict[str, Any]]) -> None:
    """Each session is an example, or was passed over, or is set aside, with a reason exactly where it is no example."""
    sessions = validated(records)
    verdicts = Sessions(pairs=pairs).judge(sessions)
    assert [one.id for one in verdicts] == sorted(sessions)
    for one in verdicts:
        assert bool(one.examples) == (one.fate in {"corrective", "positive", "pair"}) == (not one.reason)
        assert {example.provenance.session_id for example in one.examples} <= {one.id}


@settings(max_examples=300, deadline=None)
@given(records=SETS)
def test_no_target_is_a_bad_answer_or_a_placeholder(records: list[dict[str, Any]]) -> None:
    """What a badly rated session teaches is never what it answered, never empty, never a call for review."""
    sessions = validated(records)
    for one in Sessions().judge(sessions):
        for example in one.examples:
            assert example.output.strip()
            assert "manual review" not in example.output
            if one.fate == "corrective":
                assert collapse(example.output) != collapse(answer(sessions[one.id]))


@settings(max_examples=150, deadline=None)
@given(records=SETS)
def test_chosen_and_rejected_differ_in_stars_and_words(records: list[dict[str, Any]]) -> None:
    """In every pair the session's own answer is rejected, for its correction, or below 3 stars for a 5-star answer."""
    sessions = validated(records)
    good = {collapse(answer(one)) for one in sessions.values() if one.stars == 5}
    for one in Sessions(pairs=True).judge(sessions):
        for example in one.examples:
            assert example.rejected.text == answer(sessions[one.id])
            assert collapse(example.output) != collapse(example.rejected.text)
            if example.output != (sessions[one.id].correction or "").strip():
                assert (sessions[one.id].stars or 5) < 3
                assert collapse(example.output) in good


@settings(max_examples=100, deadline=None)
@given(records=SETS, data=st.data())
def test_the_order_of_the_listing_does_not_matter(records: list[dict[str, Any]], data: st.DataObject) -> None:
    """The same sessions in any order give the same verdicts."""
    sessions = validated(records)
    shuffled = dict(data.draw(st.permutations(list(sessions.items()))))
    assert Sessions().judge(shuffled) == Sessions().judge(sessions)
    assert Sessions(pairs=True).judge(shuffled) == Sessions(pairs=True).judge(sessions)


@settings(max_examples=60, deadline=None)
@given(files=st.lists(st.binary(max_size=40) | SESSIONS.map(lambda one: json.dumps(one).encode()), max_size=6))
def test_any_bytes_are_read_or_quarantined(files: list[bytes]) -> None:
    """Whatever the files hold, collecting gives examples, or the one error for too little data."""
    with tempfile.TemporaryDirectory() as folder:
        for nth, content in enumerate(files):
            place = Path(folder) / str(nth)
            place.mkdir()
            (place / "session.json").write_bytes(content)
        try:
            collection = Sessions(path=Path(folder), min_corrective=0).collect()
        except DataError:
            return
        assert isinstance(collection, Collection)
        seen = {one.provenance.session_id for one in collection.examples}
        assert not seen & {one.item for one in collection.quarantined}


@settings(max_examples=200, deadline=None)
@given(first=CALLS, second=CALLS)
def test_calls_that_differ_are_written_differently(first: dict[str, Any], second: dict[str, Any]) -> None:
    """Two calls read alike only if name and argument values are alike (a lone argument goes without its name)."""
    made = [calls(Session(id="s", prompt="x", iterations=[{"tool_calls": [record]}])) for record in (first, second)]
    keys = [
        (
            call.name,
            json.dumps(list(call.arguments.values()) if len(call.arguments) == 1 else call.arguments, sort_keys=True),
        )
        for (call,) in made
    ]
    assert (render(made[0]) == render(made[1])) == (keys[0] == keys[1])
