"""Makes the example sessions: four agents of a vault keeper's desk, rated by the people who worked with them.

python examples/make_sessions.py [FOLDER]    # examples/sessions by default
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from loraloop.core import atomic

SEED = 2026
FIRST = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)

OCR_LOW = "OCR confidence low"
WRONG_ACTION = "Wrong action selected"
TIMEOUT = "Timeout"

Record = dict[str, Any]


def call(name: str, /, **arguments: Any) -> Record:
    """A tool call."""
    return {"name": name, "arguments": arguments}


def step(screen: str, *calls: Record) -> Record:
    """An iteration: what the screen showed and the calls that were chosen on it."""
    return {"tool_calls": list(calls), "screenshot_summary": screen}


def session(agent: str, task: str, rating: int | None, *steps: Record, **more: Any) -> Record:
    """A session; ``issues`` and ``comment`` are the person's feedback, the rest goes in as it is."""
    return {
        "agent": agent,
        "task": task,
        "iterations": list(steps),
        "user_rating": rating,
        "feedback_comment": more.pop("comment", ""),
        "what_went_wrong": more.pop("issues", []),
        **more,
    }


def validator(rng: np.random.Generator) -> Iterator[Record]:
    """Reads codes and labels off the screen."""

    def read(screen: str, region: str, low: int, high: int) -> Record:
        return step(screen, call("ocr", region=region) | {"confidence": int(rng.integers(low, high))})

    sharp, weak = (95, 99), (38, 72)
    yield session("validator", "Read the code on safe A12", 5, read("safe A12, sharp", "code", *sharp), answer="7304")
    yield session(
        "validator", "Read the code on safe A12", 2, read("safe A12, glare", "code", *weak), answer="73O4",
        issues=[OCR_LOW], comment="that is a zero",
    )  # fmt: skip
    yield session(
        "validator", "Read the label on panel 4", 1, read("panel 4, dark", "label", *weak), answer="PUNP 2",
        issues=[OCR_LOW],
    )  # fmt: skip
    yield session(
        "validator", "Check the serial of rack 7", 2,
        step("rack 7, small print", call("ocr", region="serial", scale=2) | {"confidence": 55}, call("accept")),
        issues=["ocr_confidence_low"], comment="accepted without a second look",
    )  # fmt: skip
    yield session(
        "validator", "Read the total of invoice 2291", 3, read("invoice 2291, skewed", "total", 74, 84),
        answer="1,840.00", correction="1,340.00", issues=[OCR_LOW],
    )  # fmt: skip
    yield session("validator", "Read the meter in room 3", 5, read("meter, sharp", "dial", *sharp), answer="00418 kWh")
    yield session(
        "validator", "Read the badge at gate 2", 2, read("badge, motion blur", "number", *weak), answer="G-2l7",
        issues=[OCR_LOW],
    )  # fmt: skip
    yield session(
        "validator", "Read the seal of crate 19", 1, read("crate 19, seal torn", "seal", *sharp), answer="n0t readable",
        issues=["Wrong language"], comment="label is in Greek",
    )  # fmt: skip


def actor(rng: np.random.Generator) -> Iterator[Record]:
    """Clicks and types."""

    def chosen(made: Record, *considered: Record) -> Record:
        return made | {"confidence": int(rng.integers(41, 60)), "alternatives": list(considered)}

    yield session(
        "actor", "Save the invoice draft", 1,
        step("invoice form, Save and Cancel", chosen(call("click", target="Cancel"), call("click", target="Save"))),
        step("invoice list, draft gone", call("done")),
        issues=[WRONG_ACTION], comment="my draft is lost",
    )  # fmt: skip
    yield session(
        "actor", "Set the vault timer to 30 min", 2,
        step("vault menu", call("click", target="Timer")),
        step("timer form", call("type", field="Minutes", text="30"),
             chosen(call("press", key="Escape"), call("press", key="Tab"), call("click", target="Apply"))),
        issues=[WRONG_ACTION], correction="click(Timer); type(field=Minutes,text=\"30\"); click(Apply)",
    )  # fmt: skip
    yield session(
        "actor", "Export the March report as CSV", 5,
        step("report list", call("open", report="March")), step("March report", call("export", format="csv")),
    )  # fmt: skip
    yield session(
        "actor", "Export the March report as CSV", 2,
        step("report list", call("open", report="March")), step("March report", call("print")),
        issues=[WRONG_ACTION], comment="printed 80 pages",
    )  # fmt: skip
    yield session(
        "actor", "Log in as auditor", 5,
        step("login page", call("type", field="User", text="auditor"), call("click", target="Log in")),
    )  # fmt: skip
    yield session(
        "actor", "Unlock safe B07", 2,
        step("safe B07, keypad", call("type", field="Code", text="4471"),
             call("click", target="Unlock") | {"seconds": 10.0, "error": "no answer in 10 s"}),
        issues=[TIMEOUT], comment="the bolt needs its time",
    )  # fmt: skip
    yield session(
        "actor", "Add a note to ticket 118", 3,
        step("ticket 118", chosen(call("click", target="Close"), call("click", target="Note"))),
        issues=["wrong_action_selected"],
    )  # fmt: skip
    yield session(
        "actor", "Mute the alarm on panel 9", 2,
        step("panel 9, alarm on", call("hold", target="Mute", timeout=3) | {"error": "timed out"}), issues=[TIMEOUT],
    )  # fmt: skip
    yield session("actor", "Rename the backup job", 4, step("job list", call("rename", job="backup", to="nightly")))
    yield session("actor", "Print the shift list", None, step("shift list", call("print")))


def coordinator(_: np.random.Generator) -> Iterator[Record]:
    """Breaks a task into steps; the plan is the answer."""
    plans = [
        ("Audit the safes on floor 2", "floor plan, 6 safes", {
            "1 list safes; 2 read each code; 3 compare with register; 4 report differences": 5,
            "1 check the safes": 2, "1 report differences; 2 list safes": 1}),
        ("Onboard a new guard", "staff page", {
            "1 create account; 2 assign shifts; 3 issue badge; 4 test badge at gate": 5, "1 issue badge": 2}),
        ("Rotate the codes of vault C", "vault C, 3 locks", {
            "1 back up codes; 2 change one lock; 3 verify it opens; 4 repeat; 5 log": 5,
            "1 change all codes; 2 log": 1}),
        ("Prepare the incident report", "incident log, 12 entries", {
            "1 filter this week; 2 group by site; 3 draft; 4 ask for review": 5, "1 copy the log; 2 send": 2}),
        ("Replace the camera at gate 1", "camera 1 offline", {
            "1 order camera; 2 plan outage; 3 swap; 4 check picture; 5 close ticket": 5,
            "1 swap; 2 order camera": 1, "1 order camera; 2 swap; 3 close ticket": 3}),
    ]  # fmt: skip
    for task, screen, rated in plans:
        for plan, rating in rated.items():
            issues = ["Steps missing"] if rating < 4 else []
            yield session("coordinator", task, rating, step(screen), answer=plan, issues=issues)


def recovery(rng: np.random.Generator) -> Iterator[Record]:
    """Gets a task going again after an error."""
    yield session(
        "recovery", "Page did not load", 2,
        step("blank page, spinner", call("reload"),
             call("wait_for", target="menu", timeout=5) | {"error": "timed out"}),
        issues=[TIMEOUT],
    )  # fmt: skip
    yield session(
        "recovery", "Login rejected the code", 1,
        step("error: wrong code, 1 try left",
             call("type", field="Code", text="0000") | {"confidence": 33, "alternatives": [call("ask", who="owner")]}),
        issues=[WRONG_ACTION], comment="locked out",
    )  # fmt: skip
    yield session(
        "recovery", "Upload stopped", 2,
        step("upload at 60%", call("upload", files=["a.pdf", "b.pdf", "c.pdf", "d.pdf"]) | {"seconds": 30.0}),
        issues=["timeout"],
    )  # fmt: skip
    yield session(
        "recovery", "A dialog covers the button", 5,
        step("cookie dialog over Unlock", call("click", target="Accept"), call("click", target="Unlock")),
    )  # fmt: skip
    yield session(
        "recovery", "A dialog covers the button", 2, step("cookie dialog over Unlock", call("click", target="Unlock")),
        issues=[WRONG_ACTION],
    )  # fmt: skip
    yield session(
        "recovery", "Code field unreadable", 2,
        step("code field, low contrast", call("ocr", region="code") | {"confidence": int(rng.integers(35, 60))},
             call("type", field="Code", text="81B3")),
        issues=[OCR_LOW, WRONG_ACTION],
    )  # fmt: skip
    yield session(
        "recovery", "Session expired", 5, step("login page, expired", call("log_in"), call("reopen", page="last"))
    )
    yield session(
        "recovery", "Printer offline", 1, step("print queue stuck", call("print")), issues=["Repeated the error"],
        correction="restart(printer); wait_for(target=ready,timeout=30); print()",
    )  # fmt: skip


def sessions(seed: int = SEED) -> Iterator[tuple[str, Record]]:
    """Every session by id, as if logged through a few working days."""
    rng = np.random.default_rng(seed)
    made = [record for agent in (validator, actor, coordinator, recovery) for record in agent(rng)]
    time = FIRST
    for number, at in enumerate(rng.permutation(len(made)), start=1):
        record = made[at]
        rating = record["user_rating"]
        time += timedelta(minutes=int(rng.integers(4, 95)))
        logged = {
            "lora_version": f"v{1 + number // 15}",
            "success": rating is None or rating > 2,
            "duration": int(rng.integers(20, 95) if rating is None or rating > 3 else rng.integers(180, 600)) / 10,
            "created": time.isoformat(),
        }
        yield f"{number:04d}-{record['agent']}", record | logged


def write(folder: Path, seed: int = SEED) -> None:
    """Write ``<id>/session.json`` for every session; the logger was stopped in the middle of the last one."""
    made = list(sessions(seed))
    for name, record in made:
        _save(folder / name / "session.json", _text(record))
    _save(folder / f"{len(made) + 1:04d}-actor" / "session.json", _text(made[-1][1])[:120])


def _text(record: Record) -> str:
    return json.dumps(record, indent=1, ensure_ascii=False) + "\n"


def _save(file: Path, text: str) -> None:
    with atomic.write(file) as stream:
        stream.write(text.encode())


if __name__ == "__main__":
    write(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "sessions")
