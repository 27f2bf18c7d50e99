"""Stage ``simulate``, as a person gives it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from loraloop.feedback.settings import Feedback
from loraloop.records import Rating, Rollout, Session

BEGAN = datetime(2026, 3, 2, tzinfo=UTC)
ROLLOUT = Rollout(id="r1", role="v", model="loraloop-ocr", stable=6, canary=7, share=0.3, began=BEGAN.isoformat())


def record(folder: Path, rated: bool = True, count: int = 300) -> None:
    """Keep three days of sessions: a version that people dislike, then a rollout of one that fails."""
    store = Feedback(folder=folder).open()
    for number in range(count):
        time = BEGAN + number * timedelta(days=3) / count
        rollout = ROLLOUT if number >= count // 3 else None
        version = rollout.version(f"t{number}") if rollout else 6
        store.keep(
            Session(
                id=f"s{number:03}", time=time.isoformat(timespec="milliseconds"), asked="agent:v",
                answered=f"ocr@{version}", role="v", prompt="p", answer="a", status="ok" if version == 6 else "error",
                duration=1.0, first_token=0.1, prompt_tokens=3, completion_tokens=5, conversation=f"t{number}",
                client=f"user {number % 40}", rollout=rollout.id if rollout else None,
            )
        )  # fmt: skip
        if rated and number % 2:
            store.rate(f"s{number:03}", Rating(stars=3 if version == 6 else 1))
    store.close()


def test_made_up_users(desk):
    """Without a recording, made-up users show what the policy does and the other rules beside it, and a picture."""
    seen = desk("stage=simulate", "seed=1")
    assert "made-up users, 21 days: 67 sessions a tick, 25% rated" in seen.out
    assert "sequential (policy default)" in seen.out
    assert "trigger fires: mean rating" in seen.out
    ours, theirs = (int(part.split()[0]) for part in seen.out.partition("  trigger fires  ")[2].split(")")[:2])
    assert 0 < ours < theirs
    assert Path(seen.out.partition("picture: ")[2].strip()).read_bytes().startswith(b"\x89PNG")


def test_a_recording(desk):
    """A recording says when this policy would have fired, and what it would have done with the recorded rollout."""
    record(desk.folder / "else")
    seen = desk("stage=simulate", "replay=else/sessions.db")
    assert "else/sessions.db: 300 sessions, 150 rated" in seen.out
    assert "ocr@6" in seen.out
    assert "rolled back: worse: success 0.0% against 100.0%" in seen.out
    assert not (desk.folder / "mlruns" / "sessions.db").exists()


def test_another_policys_rules(desk):
    """With ``policy=seed`` the plain rules are the policy's, and the sequential ones stand beside them."""
    seen = desk("stage=simulate", "policy=seed", "simulation.days=3")
    assert "plain (policy seed)" in seen.out


def test_one_rule_of_another_kind(desk):
    """A rule chosen on the command line is the policy's, and its threshold that of the rule beside it."""
    seen = desk(
        "stage=simulate", "trigger=plain", "trigger.threshold=3.1", "simulation.days=1", "simulation.crowd.rated=1"
    )
    assert seen.out.count("below 3.1") == 2
    assert "trigger=plain, canary=sequential (policy default)" in seen.out


@pytest.mark.parametrize(
    ("make", "code", "said"),
    [
        (lambda file: None, 2, "replay=else/sessions.db: no such file"),
        (lambda file: file.write_text("no database, but long enough to look like something" * 30), 2, "not a database"),
        (lambda file: record(file.parent, rated=False, count=3), 1, "none of 3 sessions has been rated"),
    ],
    ids=["none", "damaged", "unrated"],
)
def test_recordings_that_cannot_be_replayed(desk, make, code, said):
    """A recording that is not there, is none, or holds no rating gets a clear error and no picture."""
    (desk.folder / "else").mkdir()
    make(desk.folder / "else" / "sessions.db")
    seen = desk.attempt("stage=simulate", "replay=else/sessions.db")
    assert seen.code == code
    assert said in seen.err
    assert not list(desk.folder.rglob("*.png"))


def test_impossible_made_up_users(desk):
    """A value outside of its bounds is refused by its key."""
    seen = desk.attempt("stage=simulate", "simulation.crowd.hostile=2", "simulation.stable.stars=6")
    assert seen.code == 2
    assert "simulation.crowd.hostile=2" in seen.err
    assert "simulation.stable.stars=6" in seen.err
