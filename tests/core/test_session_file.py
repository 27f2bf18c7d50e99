"""``session.json``: what is written is what is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.core.session_file import ISSUES, UNLEARNED, SessionFile, issue_word, parse
from loraloop.core.session_rows import FIELDS
from loraloop.records import AGENTS, Rating, Session

EXAMPLES = Path(__file__).parents[2] / "examples" / "sessions"
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TASK = TEXT.map(str.strip).filter(bool)
LABEL = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
TIME = st.none() | st.datetimes().map(lambda time: time.isoformat(timespec="milliseconds") + "+00:00")
JSON = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | TEXT, lambda inner: st.lists(inner, max_size=2))
RATING = st.builds(
    Rating, stars=st.integers(1, 5), comment=TEXT, issues=st.lists(st.sampled_from([*ISSUES])).map(tuple)
)
PROMPT = TASK | st.builds(
    lambda system, user: [{"role": "system", "content": system}, {"role": "user", "content": user}],
    TEXT.filter(bool),
    TASK,
)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Sessions that ``session.json`` can say everything of."""
    version = draw(st.none() | st.sampled_from(["base", "ocr@7"]))
    return Session(
        id="s",
        prompt=draw(PROMPT),
        time=draw(TIME),
        asked=version,
        answered=version,
        role=draw(st.none() | st.sampled_from(AGENTS)),
        answer=draw(st.none() | TEXT),
        iterations=draw(st.none() | st.lists(JSON, max_size=3)),
        status=draw(st.none() | st.sampled_from(["ok", "error"])),
        duration=draw(st.none() | st.floats(0, 1e6)),
        conversation=draw(LABEL),
        client=draw(LABEL),
        rollout=draw(LABEL),
        asked_key=draw(LABEL),
        rated_key=draw(LABEL),
        refused=tuple(draw(st.lists(TEXT, max_size=2))),
        rating=draw(st.none() | RATING),
        rated=draw(TIME),
        correction=draw(st.none() | TEXT),
    )


@settings(max_examples=200, deadline=None)
@given(session=sessions())
def test_a_session_that_was_written_is_read_as_it_was(session):
    """Whatever it holds, a session and its file say the same, both ways."""
    content = SessionFile.of(session).encode()
    assert parse(content).session("s") == session
    assert SessionFile.of(parse(content).session("s")).encode() == content


def test_what_is_written_stays_what_earlier_versions_wrote():
    """Names, their order and the layout of a file are fixed, and what nobody said is left out."""
    rating = Rating(stars=2, comment="", issues=("ocr_confidence_low", "Glitch"))
    session = Session(
        id="s1", time="2026-03-02T11:00:00.000+00:00", answered="ocr@7", role="counter", status="cancelled",
        prompt=[{"role": "system", "content": "Read."}, {"role": "user", "content": "HHTT"}], rating=rating, implied=5,
    )  # fmt: skip
    assert SessionFile.of(session).encode().decode() == (
        '{\n  "task": "HHTT",\n  "instruction": "Read.",\n  "user_rating": 2,\n  "feedback_comment": "",\n'
        '  "what_went_wrong": [\n    "OCR confidence low",\n    "Glitch"\n  ],\n  "lora_version": "ocr@7",\n'
        '  "success": false,\n  "created": "2026-03-02T11:00:00.000+00:00"\n}\n'
    )


def test_an_example_is_read_with_every_field():
    """Each field of a shipped session is in the record, under the record's name."""
    content = (EXAMPLES / "0001-actor" / "session.json").read_bytes()
    found, said = parse(content).session("0001-actor"), json.loads(content)
    assert (found.task, found.role, found.answered) == (said["task"], said["agent"], said["lora_version"])
    assert found.rating == Rating(stars=2, comment="printed 80 pages", issues=("wrong_action_selected",))
    assert (found.iterations, found.status, found.duration) == (said["iterations"], "error", said["duration"])


@pytest.mark.parametrize("written", ["OCR confidence low", "ocr_confidence_low", "OCR-Confidence  low "])
def test_an_issue_is_known_however_it_is_written(written):
    """Labels and words of an issue, whatever their case and separators, are the same issue; others stay as they are."""
    assert issue_word(written) == "ocr_confidence_low"
    assert issue_word("Glitch!") == "Glitch!"


def test_a_row_of_the_database_fills_every_field():
    """The query's fields and the record's are the same ones: none is added to one alone but the store's own."""
    from loraloop.feedback.schema import sessions as table

    assert FIELDS | {"prompt", "rating"} == set(table.c.keys()) - {"next_past"} | {
        "rating",
        "rated",
        "implied",
        "correction",
        "rated_key",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("client", 123), ("client", ""), ("conversation", 7), ("rollout", "r" * 300), ("rated", "yesterday")],
)
def test_what_training_does_not_look_at_costs_no_session(name, value):
    """An invalid label or time of rating is left out where it is not used, and refused where it would be kept."""
    content = json.dumps({"task": "count", "user_rating": 1, "correction": "three", name: value}).encode()
    read = parse(content, UNLEARNED)
    assert (getattr(read, name), read.user_rating, read.correction) == (None, 1, "three")
    with pytest.raises(ValueError, match=name):
        parse(content)


def test_an_invalid_field_that_is_learned_from_is_refused_all_the_same():
    """A bad label beside a bad duration does not hide the latter."""
    with pytest.raises(ValueError, match="duration"):
        parse(b'{"task": "count", "client": 1, "duration": -1}', UNLEARNED)
