"""Stage ``review``, as a person gives it."""

from __future__ import annotations

import os
import pty
import re
import sys

import pytest

from loraloop.feedback.settings import Feedback
from loraloop.records import Assessment, Rating, Session
from waiting import PATIENCE, spawn


@pytest.fixture
def waiting(desk):
    """A desk at which three answers were rated badly, with the right ones."""
    store = Feedback(folder=desk.folder / "mlruns").open()
    for name in ("s1", "s2", "s3"):
        store.keep(
            Session(
                id=name, time="2026-03-02T11:00:00.000+00:00", asked="base", answered="base", role=None,
                prompt=f"task of {name}", answer="wrong", status="ok", duration=1.0, first_token=0.1,
                prompt_tokens=3, completion_tokens=5,
            )
        )  # fmt: skip
        store.rate(name, Rating(stars=2, correction=f"right of {name}"))
    store.close()
    return desk


def corrections(desk):
    """The accepted correction of every session."""
    store = Feedback(folder=desk.folder / "mlruns").open()
    found = {each.id: each.correction for each in store.all()}
    store.close()
    return found


def test_a_list_where_there_is_no_terminal(waiting):
    """Without a terminal every proposal is listed, nothing is decided, and the way on is told."""
    seen = waiting("stage=review")
    assert [line for line in seen.out.splitlines() if line.startswith("proposal")] == [
        f"proposal {number} ({number} of 3), session s{number}" for number in (1, 2, 3)
    ]
    assert "accept=[1,2] reject=[3]" in seen.out
    assert set(corrections(waiting).values()) == {None}


def test_what_a_judge_scored_lowest_comes_first(waiting):
    """With ``order=judge`` the queue begins with the lowest score; nothing is decided; other orders are refused."""
    store = Feedback(folder=waiting.folder / "mlruns").open()
    for session, score in (("s1", 4), ("s3", 5), ("s3", 1)):
        said = Assessment(id="", source="judge", by="m", kind="feedback", name="score:0", value=score)
        store.assess(session, [said])
    store.close()
    seen = waiting("stage=review", "order=judge").out
    assert re.findall(r"^proposal \d .* session (s\d)$", seen, re.M) == ["s3", "s1", "s2"]
    assert set(corrections(waiting).values()) == {None}
    assert "'teach', 'judge' or 'oldest'" in waiting.attempt("stage=review", "order=judgement").err
    assert "policy.judge=never" in waiting.attempt("stage=review", "order=judge", "policy.judge=never").err


def test_decisions_by_number(waiting):
    """Named proposals are accepted and rejected; only accepted ones become corrections."""
    assert "1 accepted, 1 rejected, 1 wait" in waiting("stage=review", "accept=[2]", "reject=[1]").out
    assert corrections(waiting) == {"s1": None, "s2": "right of s2", "s3": None}


def test_all_that_wait_at_once(waiting):
    """``accept=all`` accepts every proposal that waits."""
    assert "3 accepted, 0 rejected, 0 wait" in waiting("stage=review", "accept=all").out
    assert corrections(waiting) == {name: f"right of {name}" for name in ("s1", "s2", "s3")}


@pytest.mark.parametrize(
    "named", [["accept=[9]"], ["accept=9"], ["accept=alle"], ["accept=[1]", "reject=[1]"], ["accept=[1,9]"]]
)
def test_numbers_that_do_not_wait(waiting, named):
    """An unknown number, or one both accepted and rejected, decides nothing at all."""
    seen = waiting.attempt("stage=review", *named)
    assert seen.code == 2
    assert set(corrections(waiting).values()) == {None}


def test_a_session_takes_one_of_its_proposals(waiting):
    """Of two proposals for one session ``accept=all`` takes the first; to accept both by number is refused."""
    store = Feedback(folder=waiting.folder / "mlruns").open()
    store.propose([("s1", "sibling", "another")])
    store.close()
    assert "1, 4: a session takes one" in waiting.attempt("stage=review", "accept=[1,4]").err
    assert "3 accepted, 0 rejected, 0 wait" in waiting("stage=review", "accept=all").out
    assert corrections(waiting)["s1"] == "right of s1"


def test_one_by_one_at_the_terminal(waiting):
    """At a terminal each proposal is shown and accepted, edited in the person's editor, or rejected."""
    editor = waiting.folder / "editor.sh"
    editor.write_text('#!/bin/sh\necho edited > "$1"\ntouch -d \'+1 minute\' "$1"\n')
    editor.chmod(0o755)
    ours, theirs = pty.openpty()
    process = spawn(
        [sys.executable, "-m", "loraloop", "stage=review"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=waiting.folder,
        env=os.environ | {"VISUAL": str(editor), "EDITOR": str(editor)},
    )  # fmt: skip
    os.close(theirs)
    os.write(ours, b"a\ne\nr\n")
    shown = b""
    try:
        while more := os.read(ours, 4096):
            shown += more
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait(timeout=PATIENCE) == 0, shown
    assert b"right of s3" in shown
    assert corrections(waiting) == {"s1": "right of s1", "s2": "edited", "s3": None}


def test_nothing_waits(waiting):
    """When all is decided the command says so, and what of the badly rated sessions has a correction."""
    waiting("stage=review", "accept=[1,2]", "reject=[3]")
    said = waiting("stage=review").out
    assert "no correction waits" in said
    assert "sessions rated below 4 with an accepted correction: 2" in said
    assert "sessions rated below 4 without a correction: 1; to write one: loraloop stage=feedback" in said


def test_a_role_alone(waiting):
    """With a role only its corrections are listed and decided on; an unknown one is refused with those there are."""
    store = Feedback(folder=waiting.folder / "mlruns").open()
    store.keep(Session(id="s4", prompt="wifi slow", answer="printing", answered="support@1", role="tickets"))
    store.rate("s4", Rating(stars=1, correction="network"))
    store.close()
    own = ("stage=review", "role=tickets", "server.roles.tickets=support@champion")
    assert re.findall(r"session (\w+)", waiting(*own).out) == ["s4"]
    assert "1 accepted, 0 rejected, 0 wait" in waiting(*own, "accept=all").out
    assert {name for name, text in corrections(waiting).items() if text} == {"s4"}
    seen = waiting.attempt("stage=review", "role=ticket", "server.roles.tickets=support@champion")
    assert "there is no role ticket (did you mean tickets?): server.roles has validator" in seen.err
