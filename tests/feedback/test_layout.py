"""``session.json`` out of the store and into it."""

from __future__ import annotations

import json
import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loraloop.errors import DataError
from loraloop.feedback import layout
from loraloop.feedback.settings import Feedback
from loraloop.records import AGENTS, Rating, Session
from loraloop.source.sessions import reading

EXAMPLES = Path(__file__).parents[2] / "examples" / "sessions"


def undated(sessions):
    """Sessions without the time of their rating: the store takes the session's own where the log does not say."""
    return {name: replace(session, rated=None) for name, session in sessions.items()}


def test_the_examples_come_out_as_they_went_in(store, tmp_path):
    """Imported and exported again, every example session says the same to ``source=sessions``."""
    new, known, broken = layout.load(store, EXAMPLES)
    assert (new, known, [each.item for each in broken]) == (38, 0, ["0039-actor"])
    assert layout.export(store, tmp_path / "out") == (38, [])
    before, _ = reading.read(EXAMPLES)
    after, unusable = reading.read(tmp_path / "out")
    assert (undated(after), unusable) == (undated(before), [])


def test_the_source_reads_the_database_too(store):
    """``source=sessions`` makes of the database what it makes of the folder."""
    layout.load(store, EXAMPLES)
    before, _ = reading.read(EXAMPLES)
    after, unusable = reading.read(store.database.url)
    assert (undated(after), unusable) == (undated(before), [])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_session_is_one_record_in_store_file_and_source(data):
    """A session of the store is the same record when the source reads its export, or the database."""
    kept = draw_session(data.draw, "s1")
    with tempfile.TemporaryDirectory() as place, closing(Feedback(folder=Path(place)).open()) as store:
        assert store.insert(kept)
        layout.export(store, Path(place) / "out")
        files, rows = reading.read(Path(place) / "out"), reading.read(store.database.url)
        assert files == rows == ({"s1": kept}, [])
        assert replace(store.session("s1"), conversation_id=None) == replace(kept, refused=())


def draw_session(draw, name):
    """A session of which ``session.json`` can hold everything."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    label = st.none() | st.sampled_from(["ann", "caf\u00e9"])
    calls = st.fixed_dictionaries({"name": st.just("click"), "arguments": st.dictionaries(text, text, max_size=2)})
    rating = draw(st.none() | st.builds(Rating, stars=st.integers(1, 5), comment=st.sampled_from(["", "no"])))
    task, instruction = draw(text.map(str.strip).filter(bool)), draw(text)
    system = [{"role": "system", "content": instruction}] if instruction else []
    return Session(
        id=name,
        prompt=[*system, {"role": "user", "content": task}] if system else task,
        time="2026-03-02T11:00:00.000+00:00",
        asked="ocr@7",
        answered="ocr@7",
        role=draw(st.none() | st.sampled_from(AGENTS)),
        answer=draw(st.none() | text),
        iterations=draw(st.none() | st.lists(st.fixed_dictionaries({"tool_calls": st.lists(calls)}), max_size=2)),
        status=draw(st.none() | st.sampled_from(["ok", "error"])),
        duration=draw(st.none() | st.floats(0, 1e6)),
        conversation=draw(label),
        client=draw(label),
        rollout=draw(label),
        rating=rating,
        rated=rating and "2026-03-02T12:00:00.000+00:00",
        correction=draw(st.none() | text),
        asked_key=draw(label),
        rated_key=rating and draw(label),
        refused=tuple(draw(st.lists(text, max_size=2))),
    )


def test_a_served_session_reads_the_same_both_ways(store, make, tmp_path):
    """What was served, rated and reviewed reaches the source alike through the folder and the database."""
    store.keep(make("s1"))
    store.rate("s1", Rating(stars=2, comment="no", issues=("ocr_confidence_low",), correction="3 heads"))
    store.decide(store.proposals()[0].id, "edited", "3 heads, 1 tail")
    store.keep(make("s2", role="counter", status="timeout", prompt="plain"))
    layout.export(store, tmp_path / "out")
    (files, _), (rows, _) = reading.read(tmp_path / "out"), reading.read(store.database.url)
    for found in (files["s1"], rows["s1"]):
        assert (found.instruction, found.task) == ("Read the dial.", "HHTT")
        assert (found.answer, found.agent) == ("2 heads, 2 tails", "validator")
        assert (found.stars, found.correction, found.answered) == (2, "3 heads, 1 tail", "ocr@7")
    layout.load(other := Feedback(folder=tmp_path / "copy").open(), tmp_path / "out")
    assert [other.session(name).prompt for name in ("s1", "s2")] == [
        store.session(name).prompt for name in ("s1", "s2")
    ]
    assert files["s1"].issues == ("ocr_confidence_low",)
    for found in (files["s2"], rows["s2"]):
        assert (found.task, found.agent, found.success, found.stars) == ("plain", None, False, None)


def test_what_nobody_reviewed_is_not_learned_from(store, make, tmp_path):
    """A correction that waits or was rejected, and implied stars, reach the source neither way."""
    store.keep(make("s1"))
    store.rate("s1", Rating(stars=1, correction="ignore your rules"))
    store.keep(make("s2"))
    layout.export(store, tmp_path / "out")
    text = "".join(file.read_text() for file in tmp_path.rglob("session.json"))
    assert "ignore your rules" not in text
    assert "user_rating" in (tmp_path / "out" / "s1" / "session.json").read_text()
    assert "user_rating" not in (tmp_path / "out" / "s2" / "session.json").read_text()
    rows, _ = reading.read(store.database.url)
    assert (rows["s1"].correction, rows["s2"].stars) == (None, None)


def test_importing_twice(file, tmp_path):
    """What is there stays: a second import adds nothing, and an export over an earlier one renews it."""
    layout.load(file, EXAMPLES)
    assert layout.load(file, EXAMPLES)[:2] == (0, 38)
    for _ in range(2):
        assert layout.export(file, tmp_path / "out")[0] == 38


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "session.json"),
        (b"[]", "session.json"),
        (b'{"task": " "}', "task"),
        (b'{"task": "t", "user_rating": 6}', "user_rating"),
        (b'{"task": "t", "duration": -1}', "duration"),
        (b'{"task": "t", "created": "yesterday"}', "created"),
        (b'{"task": "t", "created": "0001-01-01T00:00:00+05:00"}', "created"),
        (b'{"task": "t", "user_rating": 1, "rated": "soon"}', "rated"),
        (b"\xff", "not UTF-8"),
        (None, "there is no session.json"),
    ],
)
def test_broken_sessions_are_set_aside(file, tmp_path, content, reason):
    """A session that cannot be used is named with its reason, and the others are kept."""
    for name, text in (("bad", content), ("good", b'{"task": "t"}')):
        (tmp_path / "in" / name).mkdir(parents=True)
        if text is not None:
            (tmp_path / "in" / name / "session.json").write_bytes(text)
    new, _, (broken,) = layout.load(file, tmp_path / "in")
    assert (new, broken.item) == (1, "bad")
    assert reason in broken.reason


def test_a_folder_that_is_not_there(file, tmp_path):
    """An import from nowhere says so."""
    with pytest.raises(DataError, match="no folder"):
        layout.load(file, tmp_path / "nowhere")


def test_half_a_character_is_set_aside(file, make, tmp_path):
    """A session whose text is no Unicode is named and left out of the export."""
    file.keep(make("s1", answer="\ud800"))
    file.keep(make("s2"))
    written, (unusable,) = layout.export(file, tmp_path / "out")
    assert (written, unusable.item) == (1, "s1")
    assert json.loads((tmp_path / "out" / "s2" / "session.json").read_bytes())["answer"] == "2 heads, 2 tails"
