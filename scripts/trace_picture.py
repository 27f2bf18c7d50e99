"""Remake the picture of a served answer's trace in MLflow, docs/images/mlflow-trace.png.

    python scripts/trace_picture.py

Needs Chromium (`apt install chromium`).
"""

from __future__ import annotations

import base64
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from screenshot import IMAGES, Browser, browser, ui

from loraloop.records import Session
from loraloop.tracing.mlflow import MlflowTraces

WINDOW = (1300, 900)
BUTTON = "[...document.querySelectorAll('button, [role=menuitem], label')].find(e => e.innerText.trim() == '%s')"
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL = {"id": "call_1", "type": "function", "function": {"name": "look_up", "arguments": '{"city": "Bern"}'}}
TALK = [
    {"role": "system", "content": "Look it up, then answer in one sentence."},
    {"role": "user", "content": "How warm is it in Bern, and in Basel?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "call_1", "content": "3 degrees, rain"},
]


def session() -> Session:
    """The second answer of a conversation with tools."""
    call = '<tool_call>\n{"name": "look_up", "arguments": {"city": "Basel"}}\n</tool_call>'
    return Session(
        id="0001-coordinator",
        time=datetime.now(UTC).isoformat(timespec="milliseconds"),
        asked="agent:coordinator",
        answered="decomposition@3",
        role="coordinator",
        prompt=TALK,
        tools=[TOOL],
        answer=f"Bern has 3 degrees; now Basel. {call}",
        status="ok",
        duration=0.9,
        first_token=0.2,
        prompt_tokens=88,
        completion_tokens=31,
        conversation="weather",
        client="ann",
    )


def address(site: str, place: MlflowTraces, session: str) -> str:
    """The page of a session's trace."""
    experiment, trace = place.where(session)
    return f"{site}/#/experiments/{experiment}/traces?selectedEvaluationId={trace}"


def open_trace(page: Browser, url: str, until: str) -> None:
    """Open the page of a trace, until its text holds ``until``."""
    page.open(url, f"document.body.innerText.includes({until!r})")


def rate_badly(page: Browser, why: str) -> None:
    """Give the answer whose trace is open a "False" as a person's feedback, with words, by mouse and keys."""
    page.click(BUTTON % "Assess")
    page.click(BUTTON % "Add feedback")
    page.click(BUTTON % "Human feedback")
    page.click("document.querySelector('input[placeholder=\"Enter a feedback name\"]')")
    page.call("Input.insertText", text="helpful")
    page.press("Tab", 9)
    page.click(BUTTON % "False")
    page.click("document.querySelector('textarea[data-component-id$=\"assessment-rationale-input\"]')")
    page.call("Input.insertText", text=why)
    page.click(BUTTON % "Create")
    page.wait("document.body.innerText.includes('Feedback (1)')")


def keep_picture(page: Browser, file: Path) -> None:
    """Write the trace, without the page behind it, as a PNG."""
    clip = {"x": 0, "y": 0, "width": 910, "height": 810, "scale": 0.8}
    file.write_bytes(base64.b64decode(page.call("Page.captureScreenshot", format="png", clip=clip)["data"]))


def main() -> None:
    """Take the picture."""
    with tempfile.TemporaryDirectory() as scratch, browser(*WINDOW) as page:
        place = MlflowTraces(None, Path(scratch) / "mlruns", "loraloop-answers")
        place.send([session()])
        with ui(Path(scratch)) as site:
            open_trace(page, address(site, place, session().id), "3 degrees, rain")
            keep_picture(page, IMAGES / "mlflow-trace.png")


if __name__ == "__main__":
    main()
