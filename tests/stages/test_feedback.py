"""Stage ``feedback``, as a person gives it."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import httpx2
import openai
import pytest

from loraloop.client import Client
from loraloop.feedback.settings import Feedback
from loraloop.records import Session
from waiting import PATIENCE, spawn

EXAMPLES = Path(__file__).parents[2] / "examples" / "sessions"


@pytest.fixture
def asked(desk):
    """A desk at which ``s1`` was served."""
    store = Feedback(folder=desk.folder / "mlruns").open()
    store.keep(
        Session(
            id="s1", time="2026-03-02T11:00:00.000+00:00", asked="base", answered="ocr@7", role=None,
            prompt=[{"role": "user", "content": "read \x1b[31mthis"}], answer="7F-2A", status="ok", duration=1.0,
            first_token=0.1, prompt_tokens=3, completion_tokens=5,
        )
    )  # fmt: skip
    store.close()
    return desk


def rating(desk):
    """What was kept of ``s1``."""
    store = Feedback(folder=desk.folder / "mlruns").open()
    found = store.session("s1").rating
    store.close()
    return found


def on_terminal(desk, typed, *arguments):
    """Give a command at a terminal and type; what was shown."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "loraloop", *arguments]
    process = spawn(command, stdin=theirs, stdout=theirs, stderr=theirs, cwd=desk.folder)
    os.close(theirs)
    os.write(ours, typed.encode())
    shown = b""
    try:
        while more := os.read(ours, 4096):
            shown += more
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait(timeout=PATIENCE) == 0, shown
    return shown.decode()


def test_a_rating_in_one_command(asked):
    """Stars, comment and issues are kept, and the list shows the session with them, its request and its answer."""
    asked("stage=feedback", "session=s1", "rating=4", 'comment="off by 10 px"', "issues=[ocr_confidence_low]")
    found = rating(asked)
    assert (found.stars, found.comment, found.issues) == (4, "off by 10 px", ("ocr_confidence_low",))
    lines = asked("stage=feedback").out.splitlines()
    at = next(at for at, line in enumerate(lines) if line.startswith("s1  "))
    assert lines[at].split("  ")[2:] == ["ocr@7", "ok in 1 s", "4 stars"]
    assert [line.split() for line in lines[at + 1 :]] == [
        ["asked", "read", "\N{REPLACEMENT CHARACTER}[31mthis"],
        ["answered", "7F-2A"],
    ]
    assert "7F-2A" in asked("stage=feedback", "role=validator").out
    assert "7F-2A" not in asked("stage=feedback", "role=actor").out


def test_a_correction_after_the_rating(asked):
    """A right answer can be written for a session that was rated without one; the list says that it waits."""
    asked("stage=feedback", "session=s1", "rating=2")
    assert "waits for review" in asked("stage=feedback", "session=s1", "correction=7F-2B").line("correction")
    assert "correction waits for review (loraloop stage=review): 7F-2B" in asked("stage=feedback").out
    assert rating(asked).stars == 2


def test_a_repeated_correction(asked):
    """Another right answer for the same session takes the place of the one that waits; the same one is kept once."""
    asked("stage=feedback", "session=s1", "rating=2")
    for text in ("7F-2B", "7F-2C", "7F-2C"):
        asked("stage=feedback", "session=s1", f"correction={text}")
    assert [line for line in asked("stage=review").out.splitlines() if "correction (user)" in line] == [
        "  correction (user)  7F-[-2A-]{+2C+}"
    ]
    assert "1 accepted, 0 rejected, 0 wait" in asked("stage=review", "accept=all").out
    seen = asked.attempt("stage=feedback", "session=s1", "correction=7F-2D")
    assert (seen.code, "was decided on already" in seen.err) == (1, True)


def test_a_conversation_is_rated(asked):
    """Both answers of a conversation are listed with it, and ``level`` rates it, once and apart from its answers."""
    store = Feedback(folder=asked.folder / "mlruns", next_turn=True).open()
    past = [*store.session("s1").prompt, {"role": "assistant", "content": "7F-2A"}]
    prompt = [*past, {"role": "user", "content": "No, below"}]
    store.keep(Session(id="s2", prompt=prompt, answer="9C", answered="ocr@7", status="ok", duration=1.0))
    store.close()
    assert "conversation s1" in asked("stage=feedback", "session=s2", "level=conversation", "rating=2").line("rating")
    seen = asked("stage=feedback")
    assert re.findall(r"^    conversation +(.*)$", seen.out, re.M) == ["s1  2 stars", "s1  2 stars"]
    assert (seen.line("next turn"), "asked      No, below" in seen.out) == ("corrects", True)
    assert seen.out.count("not rated") == 2
    again = asked.attempt("stage=feedback", "session=s1", "level=conversation", "rating=5")
    assert (again.code, "the conversation of s1 is rated already" in again.err) == (1, True)
    for wrong in (["level=all"], ["level=conversation", "correction=x"]):
        assert asked.attempt("stage=feedback", "session=s1", "rating=2", *wrong).code == 2


def test_a_rating_at_the_terminal(asked):
    """Without a rating the terminal shows the answer, asks again for one outside 1 to 5, and keeps what is typed."""
    shown = on_terminal(asked, "6\n2\n1,3\nslow\n\n", "stage=feedback", "session=s1")
    assert "7F-2A" in shown
    assert "\x1b[31mthis" not in shown
    found = rating(asked)
    assert (found.stars, found.issues, found.comment) == (2, ("ocr_confidence_low", "timeout"), "slow")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["session=s1", "rating=6"], 2, ["rating=6: give 1, 2, 3, 4 or 5 stars"]),
        (["session=s1", "rating=true"], 2, ["rating=True"]),
        (["session=s1", "rating=0", "issues=[time_out]"], 2, ["rating=0", "issues=time_out", "minor_precision_issue"]),
        (["session=nobody", "rating=4"], 1, ["there is no session 'nobody'"]),
        (["session=s1", "rating=4", f"comment={'c' * 2001}"], 2, ["2001 characters; at most 2000"]),
        (["feedback.url=mysql://x/y"], 2, ["sqlite:///FILE"]),
        (["load=nowhere"], 1, ["nowhere is no folder"]),
    ],
)
def test_what_cannot_be(asked, arguments, code, words):
    """A wrong value, an unknown session or folder gets one clear error each, and nothing is kept."""
    seen = asked.attempt("stage=feedback", *arguments)
    assert seen.code == code, seen
    assert all(each in seen.err for each in words), seen.err
    assert rating(asked) is None


def test_nobody_to_ask(asked):
    """Where there is no terminal the command says what to add."""
    done = subprocess.run(
        [sys.executable, "-m", "loraloop", "stage=feedback", "session=s1"],
        cwd=asked.folder, stdin=subprocess.DEVNULL, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, "add rating=1" in done.stderr) == (2, True), done


def test_a_second_rating(asked):
    """A session that is rated is not rated again."""
    asked("stage=feedback", "session=s1", "rating=4")
    seen = asked.attempt("stage=feedback", "session=s1", "rating=1")
    assert (seen.code, "rated already" in seen.err, rating(asked).stars) == (1, True, 4)


def test_nothing_served_yet(desk):
    """Without a store the command says how to get one, and makes none."""
    seen = desk.attempt("stage=feedback")
    assert (seen.code, "stage=serve" in seen.err) == (2, True)
    assert not (desk.folder / "mlruns" / "sessions.db").exists()


def test_sessions_in_and_out(desk):
    """Sessions come in from files and go out to files, and both they and the database make the same dataset."""
    seen = desk("stage=feedback", f"load={EXAMPLES}", "export=out")
    assert seen.line("kept").startswith("38 new, 0 were there")
    assert json.loads((desk.folder / "out" / "0001-actor" / "session.json").read_text())["user_rating"] == 2
    collect = ("stage=collect", "source=sessions", "source.review=none")
    prints = {
        desk(*collect, f"source.path={path}", f"dataset.export={name}.jsonl").line("fingerprint")
        for name, path in (("a", EXAMPLES), ("b", "out"), ("c", "mlruns/sessions.db"))
    }
    assert len(prints) == 1


def test_what_a_server_served_is_rated(office):
    """A client rates its answer with a program, a person the next one on its page, and both count in the metrics."""
    process = office.start("stage=serve", "tracker=none", "server.port=0")
    try:
        address = next((line for line in process.stdout if line.strip().startswith("address")), "")
        assert address, process.stderr.read()
        url = address.split()[1].removesuffix("/v1")
        client = Client(url)
        client.ask("copy\nopen the gate", temperature=0)
        client.rate(2, "not this", ["other"])
        with httpx2.Client(base_url=url, timeout=PATIENCE) as browser:
            assert "Rated already" in browser.get(client.link).text
            client.ask("copy\nopen the gate", temperature=0)
            page = browser.get(client.link).text
            token = re.search(r'name="csrf" value="([^"]+)"', page)[1]
            assert browser.post(client.link, data={"csrf": token, "rating": "5"}).status_code == 200
            counted = browser.get("/metrics").text
        for stars, kind, count in ((2, "explicit", 1), (5, "explicit", 1), (5, "implicit", 2)):
            assert f'loraloop_ratings_total{{kind="{kind}",model="base",stars="{stars}"}} {count}.0' in counted
        with pytest.raises(openai.NotFoundError, match="no session 'nobody'"):
            client.rate(5, session="nobody")
        with pytest.raises(openai.BadRequestError, match="rating"):
            client.rate(6)
    finally:
        process.kill()
        process.communicate()
