"""Stage ``ledger``: what served when, and why."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from loraloop.registry.ledger import Entry, Ledger

FACTS = {"decision": "validator-1/4-rollout", "role": "validator", "policy": "default", "cycle": "validator-1"}


@pytest.fixture
def story(desk) -> list[Entry]:
    """The ledger of the validator's model: version 1 is the champion, version 2 is tried beside it and wins."""
    ledger = Ledger(desk.folder / "mlruns" / "loraloop-ocr.ledger.jsonl")
    ledger.append("register", 1, "content 0123456789ab", alias="candidate")
    ledger.append("promote", 1, "it beats the base", alias="champion", numbers={"margin": 0.0312345, "run": "12e4567"})
    ledger.append("trigger", 1, "average 3.41 of 60 ratings", numbers=FACTS)
    tried = FACTS | {"rollout": "r1", "share": 0.15}
    ledger.append("rollout", 2, "better on the golden set", alias="canary", numbers=tried)
    ledger.append(
        "promote", 2, "both bounds clear the margins", alias="champion", numbers=tried | {"stars": {"low": 0.11}}
    )
    return ledger.entries()


def test_which_version_served_a_role_and_why(desk, story):
    """A role leads to its own model's ledger; the answer holds the reason, the numbers, the policy and the decision."""
    seen = desk("stage=ledger", "role=validator", f"at={story[4].time}")
    assert seen.out.startswith(f"loraloop-ocr version 2 was validator at {story[4].time}")
    assert seen.line("since") == story[4].time
    assert seen.line("why") == "promote: both bounds clear the margins"
    assert seen.line("numbers") == "share 0.15, stars.low 0.11"
    assert (seen.line("policy"), seen.line("decision")) == ("default", "validator-1/4-rollout")
    assert "canary" not in seen.out


def test_what_was_tried_beside_it(desk, story):
    """While a rollout ran, the answer names the new version, its share and why it was tried."""
    seen = desk("stage=ledger", "role=validator", f"at={story[3].time}")
    assert seen.out.startswith("loraloop-ocr version 1 was validator at ")
    assert seen.line("why") == "promote: it beats the base"
    assert seen.line("numbers") == "margin 0.03123, run 12e4567"
    assert seen.line("canary") == (
        f"version 2 to 15% of conversations, since {story[3].time}: better on the golden set"
    )
    assert "policy" not in seen.out, "nothing says under which one a person promoted it"


def test_times_without_a_zone_are_utc(desk, story):
    """A time without a zone is read as UTC and shown with it; one with a zone is that moment."""
    plain, zone = story[4].time.split("+")
    assert zone == "00:00"
    seen = desk("stage=ledger", "role=validator", f"at={plain}")
    assert seen.out.startswith(f"loraloop-ocr version 2 was validator at {plain}+00:00")
    assert desk("stage=ledger", "role=validator", "at=2020-01-01T00:00").out == (
        "no version was validator at 2020-01-01T00:00:00+00:00"
    )
    wrong = desk.attempt("stage=ledger", "role=validator", "at=yesterday")
    assert (wrong.code, "write 2026-" in wrong.err) == (1, True)


def test_roles_and_names_are_the_servers(desk, story):
    """A role's model and alias are those of server.roles and server.names; a server that runs is in nobody's way."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        roles = ["server.roles.actor=eye@canary", "+server.names.eye=loraloop-ocr"]
        port = f"server.port={taken.getsockname()[1]}"
        seen = desk("stage=ledger", "role=actor", *roles, port, f"at={story[4].time}")
    assert seen.out.startswith("loraloop-ocr version 2 was actor at ")
    assert seen.line("why") == "rollout: better on the golden set"


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ("ocr@3", "loraloop-ocr version 3 was validator at 2026-11-20T10:00:00+00:00 if server.roles.validator=ocr@3 "),
        ("base", "base answers for validator (server.roles.validator): no version serves it"),
    ],
)
def test_a_role_without_an_alias(desk, story, answers, words):
    """A role that leads to one version, or to the base, is in no ledger, and the answer says so."""
    seen = desk("stage=ledger", "role=validator", f"server.roles.validator={answers}", "at=2026-11-20T10:00")
    assert seen.out.startswith(words)


def test_a_role_that_does_not_exist(desk, story):
    """What is neither a role nor an alias is refused with those that there are and the nearest of them."""
    seen = desk.attempt("stage=ledger", "role=validater", "at=2026-11-20T10:00")
    assert seen.code == 2
    assert "did you mean validator" in seen.err
    assert "actor" in seen.err
    assert desk("stage=ledger", "role=champion", "at=2026-11-20T10:00").out.startswith("no version was champion at ")


def test_the_whole_ledger(desk, story):
    """Every entry is a line with time, event, version and alias, role and policy where it has them, and its reason."""
    lines = desk("stage=ledger", "role=validator").out.splitlines()
    assert lines[0] == "5 entries; each continues the one before it"
    assert [line.partition(" ")[2] for line in lines if line.startswith("20")][2:] == [
        "trigger version 1 (validator, policy default)",
        "rollout version 2 -> canary (validator, policy default)",
        "promote version 2 -> champion (validator, policy default)",
    ]
    assert [line.strip() for line in lines if line.startswith("    ")] == [entry.reason for entry in story]


def test_the_present_is_told(desk, story):
    """The ledger ends with the version behind each alias and the running rollout; a future time is said to be one."""
    since = {n: story[n].time.replace("+00:00", "Z") for n in (0, 3, 4)}
    seen = desk("stage=ledger", "role=validator")
    assert seen.line("champion") == f"version 2, since {since[4]}"
    assert seen.line("candidate") == f"version 1, since {since[0]}"
    ledger = Ledger(desk.folder / "mlruns" / "loraloop-ocr.ledger.jsonl")
    ledger.append("rollout", 3, "better", alias="canary", numbers=FACTS | {"rollout": "r2", "share": 0.15})
    assert desk("stage=ledger", "role=validator").line("rollout").startswith("version 3 to 15% of conversations")
    later = desk("stage=ledger", "role=validator", "at=2999-01-01").out
    assert later.startswith("2999-01-01T00:00:00+00:00 is in the future")
    assert "loraloop-ocr version 2 was validator at 20" in later


def test_a_time_of_the_ledger_can_be_asked_for(desk, story):
    """A time as the ledger shows it, given as at=, is the moment of that entry."""
    lines = desk("stage=ledger", "role=validator").out.splitlines()
    shown = [line.split()[0] for line in lines if line.strip().startswith("20")]
    assert shown == [entry.time.replace("+00:00", "Z") for entry in story]
    seen = desk("stage=ledger", "role=validator", f"at={shown[4]}")
    assert seen.line("since") == story[4].time


def test_a_decision_that_was_written_down_late(desk):
    """Where the ledger heard of a decision later, the list and the answer show when it was taken; else they do not."""
    ledger = Ledger(desk.folder / "mlruns" / "loraloop-ocr.ledger.jsonl")
    ledger.append("promote", 1, "it beats the base", alias="champion", numbers={"decided": "2026-01-02T03:04:05+00:00"})
    tried = FACTS | {"rollout": "r1", "share": 0.15, "decided": "2026-01-02T04:00:00.250+00:00"}
    ledger.append("rollout", 2, "better on the golden set", alias="canary", numbers=tried)
    soon = ledger.entries()[-1].time
    ledger.append("gate", 3, "worse", numbers=FACTS | {"decided": soon})
    lines = [line for line in desk("stage=ledger", "role=validator").out.splitlines() if line.startswith("20")]
    assert lines[0].endswith(" promote version 1 -> champion decided 2026-01-02T03:04:05Z")
    assert lines[1].endswith(" (validator, policy default) decided 2026-01-02T04:00:00.250000Z")
    assert "decided" not in lines[2]
    seen = desk("stage=ledger", "role=validator", f"at={soon}")
    assert seen.line("decided") == "2026-01-02T03:04:05+00:00"
    assert seen.line("canary").endswith("since 2026-01-02T04:00:00.250000+00:00: better on the golden set")
    assert "numbers" not in seen.out


def test_a_name_that_no_model_can_have(desk):
    """A name of server.names that no registered model can have is refused in one sentence."""
    seen = desk.attempt("stage=ledger", "role=validator", "server.names.ocr='my model'")
    assert seen.code == 2
    assert "server.names.ocr=my model: a registered model's name begins with" in seen.err
    assert "validation error" not in seen.err


def test_the_ledger_tells_the_whole_story(finished):
    """stage=ledger lists registration, verdict and promotion of version 1 in their order."""
    seen = finished("stage=ledger")
    entries = [json.loads(line) for line in (finished.folder / "mlruns/loraloop.ledger.jsonl").read_text().splitlines()]
    assert all(entry["time"].replace("+00:00", "Z") in seen.out for entry in entries)
    events = [line.split()[1:4] for line in seen.out.splitlines() if line.startswith("20")]
    assert events == [["register", "version", "1"], ["gate", "version", "1"], ["promote", "version", "1"]]
    assert "policy" not in seen.out


def test_a_ledger_that_holds(desk, story):
    """verify=true says how many entries hold, and the last one's hash, by which a cut-off end is noticed."""
    seen = desk("stage=ledger", "role=validator", "verify=true")
    assert seen.line("entries").startswith("5 hold")
    assert seen.line("last") == f"{story[4].time} promote, sha256 {story[4].sha256}"


@pytest.mark.parametrize("asked", [["verify=true"], [], ["at=2026-11-20T10:00"]])
def test_an_altered_ledger_is_noticed(desk, story, asked):
    """Every question to a ledger in which an entry was changed is refused, and names the first line that is wrong."""
    ledger = desk.folder / "mlruns" / "loraloop-ocr.ledger.jsonl"
    ledger.write_text(ledger.read_text().replace("average 3.41", "average 4.41"))
    seen = desk.attempt("stage=ledger", "role=validator", *asked)
    assert (seen.code, seen.out) == (1, "")
    assert "line 3 " in seen.err


@pytest.mark.parametrize("asked", [[], ["verify=true"]])
def test_a_ledger_that_there_is_not(desk, story, asked):
    """Where nothing was ever written nothing is said to hold; the ledgers that there are are named."""
    seen = desk.attempt("stage=ledger", "registry.name=other", *asked)
    assert seen.code == 1
    assert "there are those of loraloop-ocr (registry.name=NAME, or role=ROLE)" in seen.err


def test_a_reader_that_has_seen_enough(desk):
    """``loraloop stage=ledger | head -1`` prints one line, and nothing on standard error."""
    ledger = Ledger(desk.folder / "mlruns" / "loraloop.ledger.jsonl")
    for number in range(100):
        ledger.append("note", None, f"{number} " + "x" * 2000)
    command = f"{sys.executable} -m loraloop stage=ledger | head -1"
    done = subprocess.run(["sh", "-c", command], cwd=desk.folder, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("100 entries; each continues the one before it\n", "")
