"""Served answers, a store whose sessions wait for an export, and MLflow's database, which is made once."""

from __future__ import annotations

from typing import Any

import pytest

from loraloop.feedback.settings import Feedback
from loraloop.records import Session
from loraloop.tracing.mlflow import MlflowTraces
from loraloop.tracing.queue import Queue, put
from loraloop.tracing.schema import prepare

CALL = '<tool_call>\n{"name": "look_up", "arguments": {"city": "Bern"}}\n</tool_call>'
TOOLS = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}]
TALK = [
    {"role": "system", "content": "Answer in one word."},
    {"role": "user", "content": "How warm is it in Bern?"},
]


def served(id: str = "s1", **changes: Any) -> Session:
    """An answer of an agent's version, with a tool call."""
    values: dict[str, Any] = {
        "id": id,
        "time": "2026-11-02T11:00:00.250+00:00",
        "asked": "agent:validator",
        "answered": "ocr@7",
        "role": "validator",
        "prompt": TALK,
        "tools": TOOLS,
        "answer": f"One moment. {CALL}",
        "status": "ok",
        "duration": 1.5,
        "first_token": 0.25,
        "prompt_tokens": 12,
        "completion_tokens": 16,
        "conversation": "talk",
        "client": "ann",
        "asked_key": "desk",
    }
    return Session(**values | changes)


@pytest.fixture
def make():
    """A function that makes an answer."""
    return served


@pytest.fixture
def store(tmp_path):
    """A store whose sessions wait for MLflow."""
    opened = Feedback(folder=tmp_path / "sessions").open(on_kept=put(["mlflow"]))
    prepare(opened.database)
    yield opened
    opened.close()


@pytest.fixture
def queue(store):
    """What waits for MLflow."""
    return Queue(store.database, "mlflow")


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """The folder of an MLflow database."""
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture
def mlflow(home, request):
    """An experiment of that database, of the test's own."""
    return MlflowTraces(None, home, request.node.name)
