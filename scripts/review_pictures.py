"""Remake the pictures of the page /review in docs/images: on a phone, in dark colours, and a call that does not fit.

    python scripts/review_pictures.py

Needs Chromium (`apt install chromium`).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from PIL import Image
from rate_pictures import serving
from screenshot import IMAGES, Browser, browser

from loraloop.feedback.review_page import router
from loraloop.feedback.review_queue import Queue
from loraloop.feedback.settings import Feedback
from loraloop.feedback.store import Store
from loraloop.records import Assessment, Rating, Session
from loraloop.serve.keys import Keys
from loraloop.workflows import proposals

PANEL = "Read this panel and say which code opens the vault.\nPRESSURE 4.2 bar\nCODE 7F-2A-91\nDOOR LOCKED"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "read",
            "parameters": {
                "type": "object",
                "properties": {
                    "region": {"enum": ["upper", "lower"], "description": "of the panel"},
                    "scale": {"type": "integer", "minimum": 1},
                },
                "required": ["region"],
            },
        },
    }
]
CONVERSATION = [
    {"role": "user", "content": "Which code opens the vault?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "read", "arguments": '{"region": "upper"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "c", "name": "read", "content": "PRESSURE 4.2 bar"},
]
CALL = '<tool_call>{"name": "read", "arguments": {"region": "lower", "scale": 2}}</tool_call>'
COLOURS = 64
"""Of a picture, so that it stays small."""


def example(store: Store) -> None:
    """Keep two answers with a proposed correction each; a judge scored the first."""
    known = {"time": "2026-03-02T11:00:00.000+00:00", "answered": "ocr@7", "role": "validator", "status": "ok"}
    panel = [{"role": "user", "content": PANEL}]
    store.keep(Session(id="panel", prompt=panel, answer="The code is 7F-2A-97 and the door is open.", **known))
    rated = {"comment": "two digits are wrong", "issues": ("ocr_confidence_low",)}
    store.rate("panel", Rating(stars=2, correction="The code is 7F-2A-91.", **rated))
    said = {"source": "judge", "by": "scripted", "kind": "feedback", "name": "score:0"}
    store.assess("panel", [Assessment(id="", value=1, rationale="The code is not the one on the panel.", **said)])
    store.keep(Session(id="call", prompt=CONVERSATION, answer="I see no code.", tools=TOOLS, **known))
    rated = {"comment": "it had to look below", "issues": ("wrong_action_selected",)}
    store.rate("call", Rating(stars=2, correction=CALL, **rated))


@contextlib.contextmanager
def site(store: Store, keys: Keys) -> Iterator[str]:
    """The page on a free port; its address."""
    with serving(router(store, partial(proposals.waiting, store, Queue()), keys)) as address:
        yield address


def enter(page: Browser, address: str, secret: str) -> None:
    """Give the key, as a person does."""
    page.open(f"{address}/review", "document.querySelector('#key')")
    page.js("document.querySelector('#key').focus()")
    page.call("Input.insertText", text=secret)
    page.click("document.querySelector('form button')")
    page.wait("document.querySelector('ol')")


def look(page: Browser, width: int, *, dark: bool = False, touched: bool = False) -> None:
    """Give the window a size and a scheme of colours."""
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=2400, deviceScaleFactor=1, mobile=touched)
    page.call(
        "Emulation.setEmulatedMedia",
        features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
    )


def picture(page: Browser, name: str) -> None:
    """Take a picture of the whole page."""
    file = IMAGES / f"review-{name}.png"
    page.picture(file, page.js("document.querySelector('main').getBoundingClientRect().bottom + 8"))
    with Image.open(file) as taken:
        taken.convert("RGB").quantize(COLOURS).save(file, optimize=True)


def main() -> None:
    """Take the pictures."""
    with tempfile.TemporaryDirectory() as scratch, browser() as page:
        store, keys = Feedback(folder=Path(scratch)).open(), Keys(Path(scratch) / "keys.json")
        example(store)
        with site(store, keys) as address:
            look(page, 390, touched=True)
            enter(page, address, keys.add("ann", ["review"]))
            page.open(f"{address}/review/1", "document.querySelector('#difference')")
            picture(page, "phone")
            look(page, 900, dark=True)
            page.open(f"{address}/review/1", "document.querySelector('#difference')")
            picture(page, "desktop")
            look(page, 390, touched=True)
            page.open(f"{address}/review/2", "document.querySelector('#difference')")
            page.js("document.querySelector('details').open = true")
            page.js("document.querySelector('[name=\"call.0.arg.scale\"]').value = 'big'")
            page.click("document.querySelector('[value=edit]')")
            page.wait("document.querySelector('[role=alert]')")
            picture(page, "call")
        store.close()


if __name__ == "__main__":
    main()
