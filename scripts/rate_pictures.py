"""Remake the pictures of the rating page in docs/images, at desktop and phone width, and of a conversation's.

    python scripts/rate_pictures.py

Needs Chromium (`apt install chromium`).
"""

from __future__ import annotations

import contextlib
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from fastapi import APIRouter, FastAPI
from screenshot import IMAGES, browser

from loraloop.feedback.form import router
from loraloop.feedback.settings import Feedback
from loraloop.feedback.store import Store
from loraloop.records import Session
from loraloop.serve import run
from loraloop.serve.server import Server

PROMPT = "Read this panel and say which code opens the vault.\nPRESSURE 4.2 bar\nCODE 7F-2A-91\nDOOR LOCKED"
CONVERSATION = [
    {"role": "user", "content": "Which code opens the vault?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "read", "arguments": '{"region": "upper"}'}}
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "PRESSURE 4.2 bar\nCODE 7F-2A-91"},
    {"role": "assistant", "content": "The code is 7F-2A-91."},
    {"role": "user", "content": "And is the door locked?"},
]
SIZES = {"desktop": (1000, False), "phone": (390, True), "conversation": (390, True)}
"""Width in CSS pixels, and whether it is touched."""


def example(store: Store, name: str) -> str:
    """Keep an answer; the path of its page."""
    went_on = name == "conversation"
    store.keep(
        Session(
            id=f"0001-{name}",
            time="2026-03-02T11:00:00.000+00:00",
            asked="agent:validator",
            answered="ocr@7",
            role="validator",
            prompt=CONVERSATION if went_on else [{"role": "user", "content": PROMPT}],
            answer="It is open." if went_on else "The code is 7F-2A-97.",
            status="ok",
            duration=0.8,
            first_token=0.1,
            prompt_tokens=88,
            completion_tokens=21,
        )
    )
    return store.link(f"0001-{name}")


@contextlib.contextmanager
def site(store: Store) -> Iterator[str]:
    """The rating page on a free port; its address."""
    with serving(router(store)) as address:
        yield address


@contextlib.contextmanager
def serving(routes: APIRouter) -> Iterator[str]:
    """Routes on a free port; the address."""
    app = FastAPI()
    app.include_router(routes)
    settings = Server(port=0)
    listening, server = settings.listen(), run.server(app, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield run.address(settings.host, listening.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def main() -> None:
    """Take the pictures."""
    with tempfile.TemporaryDirectory() as scratch, browser() as page:
        store = Feedback(folder=Path(scratch)).open()
        with site(store) as address:
            for name, (width, touched) in SIZES.items():
                size = {"width": width, "height": 2000, "deviceScaleFactor": 1, "mobile": touched}
                page.call("Emulation.setDeviceMetricsOverride", **size)
                page.open(address + example(store, name), "document.forms[0]")
                page.js("document.querySelector('[name=rating][value=\"2\"]').click()")
                page.js("document.querySelector('[value=ocr_confidence_low]').click()")
                page.picture(
                    IMAGES / f"rate-{name}.png",
                    page.js("document.querySelector('main').getBoundingClientRect().bottom + 8"),
                )
        store.close()


if __name__ == "__main__":
    main()
