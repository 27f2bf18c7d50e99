"""The demonstration of the loop, with little training: every step of it is the real one."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any

from loraloop.source.flips import Flips

STORY = [
    ("register", 1),
    ("promote", 1),
    ("trigger", 1),
    ("corrective", 1),
    ("train", 1),
    ("register", 2),
    ("gate", 2),
    ("rollout", 2),
    ("release", None),
    ("promote", 2),
    ("register", 3),
    ("rollout", 3),
    ("release", None),
    ("rollback", 3),
]


def entries(looped: Any) -> list[dict[str, Any]]:
    text = (looped.folder / "mlruns" / "loraloop-ocr.ledger.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def answered(looped: Any) -> list[tuple[str, str, str | None, str, int]]:
    """Conversation, version, rollout, user and stars of every session."""
    with sqlite3.connect(looped.folder / "mlruns" / "sessions.db") as database:
        query = (
            "SELECT s.conversation, s.answered, s.rollout, s.client, r.stars FROM sessions s "
            "JOIN ratings r ON r.session = s.id AND r.kind = 'explicit' ORDER BY s.time"
        )
        return database.execute(query).fetchall()


def test_the_loop_closes_by_itself(looped):
    """Ratings of a weak version bring a better one to everybody, and a broken one is taken back: all in the ledger."""
    assert [(each["event"], each["version"]) for each in entries(looped)] == STORY
    assert looped.aliases("loraloop-ocr") == {"candidate": 3, "champion": 2}
    (seen,) = looped.seen.values()
    ends = [line.split("loop  ")[1].strip() for line in seen.out.splitlines() if "  loop  " in line]
    assert ends == [
        "promoted: ocr@2 is the champion, and answers everybody",
        "rolled back: ocr@2 is the champion, and answers everybody",
    ]


def test_every_decision_is_in_mlflow(looped):
    """Each cycle has a finished run that holds its decisions, with the training's run below it."""
    decided = [each for each in entries(looped) if each["numbers"].get("cycle")]
    runs = {run.info.run_name: run for run in looped.runs()}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    for cycle in {each["numbers"]["cycle"] for each in decided}:
        tags = runs[f"loop-{cycle}"].data.tags
        told = [value for key, value in tags.items() if key.startswith("decision.")]
        assert sorted(told) == sorted(each["reason"] for each in decided if each["numbers"]["cycle"] == cycle)
    (trained,) = [run for name, run in runs.items() if name.startswith("train-")]
    (cycle,) = {each["numbers"]["cycle"] for each in decided if each["event"] == "train"}
    assert trained.data.tags["mlflow.parentRunId"] == runs[f"loop-{cycle}"].info.run_id


def test_the_new_version_answers_the_conversations_that_its_hash_draws(looped):
    """While a rollout runs, sha256(rollout|conversation) decides who answers; without one the champion does."""
    from loraloop.records import Rollout

    begun = {each["numbers"]["rollout"]: each for each in entries(looped) if each["event"] == "rollout"}
    arms = {"ocr@1": 0, "ocr@2": 0, "ocr@3": 0}
    for conversation, version, rollout, _, _ in answered(looped):
        arms[version] += 1
        if rollout is None:
            assert version == "ocr@1"
            continue
        canary = begun[rollout]["version"]
        drawn = Rollout(
            id=rollout, role="validator", model="loraloop-ocr", stable=canary - 1, canary=canary, share=0.5, began=""
        )
        assert version == f"ocr@{drawn.version(conversation)}"
    assert min(arms.values()) > 20


def test_what_was_wrong_is_learned_from_as_it_was_asked(looped):
    """The corrective set holds the accepted corrections of badly rated sessions, asked as the server was asked."""
    (home,) = (looped.folder / "mlruns" / "loop").glob("validator-1-*")
    rows = [json.loads(line) for line in (home / "set" / "corrective.jsonl").read_text().splitlines()]
    known = {(e.instruction, e.input, e.output) for e in Flips(flips=12, seed=2026).collect(None).examples}
    assert len(rows) > 50
    assert {(row["instruction"], row["input"], row["output"]) for row in rows} <= known


def test_who_served_at_a_time_and_why(looped):
    """The ledger tells who served while the new version was tried, to whom, and what brought each there."""
    begun = next(each for each in entries(looped) if each["event"] == "rollout")
    seen = looped("stage=ledger", "role=validator", f"at={begun['time']}")
    assert "loraloop-ocr version 1 was validator" in seen.out
    assert "version 2 to 50% of conversations" in seen.out
    assert "14 hold" in looped("stage=ledger", "role=validator", "verify=true").out


def test_the_recorded_sessions_replay(looped):
    """Simulated on what was recorded, the policy fires, promotes and rolls back as it did."""
    seen = looped("stage=simulate", "replay=mlruns/sessions.db", "policy.every=4s", "canary.share=0.5")
    ours = seen.out.partition("\nplain")[0]
    for what in ("ocr@1  .*trigger fires", "ocr@2 for @1 .*promoted", "ocr@3 for @2 .*rolled back"):
        assert any(re.search(what, line) for line in ours.splitlines()), what
