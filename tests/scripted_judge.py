"""A scripted judge: an HTTP server that speaks OpenAI's chat API and says what a test wrote down, no model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = str | int | float | bytes | Iterator[bytes]
"""The text of an answer; a status instead; seconds to wait first; a body that is none of OpenAI's; or raw HTTP."""
TOKENS = 7


@dataclass
class ScriptedJudge:
    """What it was asked, and what it says.

    Attributes:
        says: Takes a request's body and returns the reply.
        schema: Whether it knows ``response_format``; otherwise it answers 400, as servers do that do not.
        models: The status of its list of models, or raw HTTP.
    """

    says: Callable[[dict[str, Any]], Reply]
    schema: bool = True
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    models: int | Iterator[bytes] = 200
    url: str = ""

    def text(self, at: int = -1) -> str:
        """What the user's message of a request said."""
        return str(self.asked[at]["messages"][-1]["content"])


def verdict(value: int | str, reason: str = "because") -> str:
    """A verdict as the schema asks for it."""
    return json.dumps({"reason": reason, "score" if isinstance(value, int) else "better": value})


@contextmanager
def serving(judge: ScriptedJudge) -> Iterator[ScriptedJudge]:
    """The judge behind a port of its own, while the context is open."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # it keeps connections open, as servers do

        def do_GET(self) -> None:
            if isinstance(judge.models, Iterator):
                self.drip(judge.models)
                return
            self.answer(judge.models, {"object": "list", "data": []})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            judge.asked.append(body)
            judge.keys.append(self.headers["authorization"])
            if "response_format" in body and not judge.schema:
                self.answer(400, {"error": {"message": "response_format: only text"}})
                return
            said = judge.says(body)
            if isinstance(said, Iterator):
                self.drip(said)
                return
            if isinstance(said, float):
                time.sleep(said)
                said = verdict(5)
            if isinstance(said, str):
                message = {"role": "assistant", "content": said}
                self.answer(200, {"choices": [{"index": 0, "message": message}], "usage": {"total_tokens": TOKENS}})
            else:
                self.answer(200 if isinstance(said, bytes) else said, said if isinstance(said, bytes) else {})

        def answer(self, status: int, body: Any) -> None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.send_header("retry-after", "0.01")
            self.end_headers()
            try:
                self.wfile.write(content)
            except BrokenPipeError:
                return  # the client no longer waits

        def drip(self, parts: Iterator[bytes]) -> None:
            self.close_connection = True
            try:
                for part in parts:
                    self.wfile.write(part)
            except OSError:
                return  # the client no longer waits

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
