"""A database, a registry or a backend that hangs: what goes on meanwhile."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from loraloop.feedback.form import router
from loraloop.feedback.settings import Feedback
from loraloop.serve import api, refreshed
from waiting import PATIENCE, until


@pytest.mark.fault(
    "database locked",
    "serve",
    "all requests get a 503 within feedback.busy_seconds, health routes answer",
    "database is locked; another program holds it: end that, or raise feedback.busy_seconds",
)
def test_a_locked_database_stalls_nobody_for_long(build, tmp_path):
    """Requests under another program's lock are refused together; health is told meanwhile, and beyond the rate."""
    store = Feedback(folder=tmp_path, busy_seconds=1).open()
    house = build(sessions=store, routers=[router(store)], rate="2/hour", max_in_flight=2)
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "sessions.db", isolation_level=None)) as other,
        ThreadPoolExecutor(8) as pool,
    ):
        other.execute("BEGIN IMMEDIATE")
        asked = [pool.submit(house.chat) for _ in range(2)]
        until(lambda: len(store._writer._queue) == 2, "both sessions wait to be written")
        assert [house.get(path).status_code for path in ("/healthz", "/readyz")] == [200, 200]
        answers = [each.result(PATIENCE) for each in asked]
    assert [(each.status_code, each.headers["retry-after"]) for each in answers] == [(503, "1")] * 2
    assert house.chat().status_code == 429
    assert house.get("/healthz").status_code == 200
    store.close()


@pytest.mark.fault("MLflow hung", "serve", "requests by a known alias are answered at once")
def test_a_registry_that_hangs(build, monkeypatch):
    """An alias that is known answers while the registry hangs, and so does the list of models."""
    monkeypatch.setattr(refreshed, "GRACE_SECONDS", 0)
    house = build(alias_seconds=0, roles={})
    assert house.chat(model="ocr@champion").json()["model"] == "ocr@7"
    known = house.get("/v1/models").json()
    house.registry.answers.clear()
    try:
        assert [house.chat(model="ocr@champion").json()["model"] for _ in range(8)] == ["ocr@7"] * 8
        assert house.get("/v1/models").json() == known
        assert len(house.registry.asked) == 2
    finally:
        house.registry.answers.set()


def test_an_alias_that_stays_behind_is_told(build):
    """A moved alias whose version cannot be loaded answers with the one before, in /readyz and /metrics too."""
    house = build(alias_seconds=0)
    assert house.chat(model="ocr@champion").json()["model"] == "ocr@7"
    house.backend.damaged.add("ocr@8")
    house.registry.aliases["loraloop-ocr@champion"] = 8
    assert house.chat(model="ocr@champion").json()["model"] == "ocr@7"
    assert house.get("/readyz").json() == {"status": "ready", "aliases_behind": 1}
    assert 'loraloop_alias_behind{alias="ocr@champion"} 1.0' in house.metrics.text().decode()
    house.registry.aliases["loraloop-ocr@champion"] = 9
    assert house.chat(model="ocr@champion").json()["model"] == "ocr@9"
    assert house.get("/readyz").json()["aliases_behind"] == 0
    assert 'loraloop_alias_behind{alias="ocr@champion"} 0.0' in house.metrics.text().decode()


def test_readiness_of_a_backend_that_hangs(build, monkeypatch):
    """A backend that does not tell its state is believed for a while, then not ready; nothing waits for it."""
    monkeypatch.setattr(refreshed, "GRACE_SECONDS", 0)
    monkeypatch.setattr(api, "READY_SECONDS", 0)
    house, gate, asked = build(), threading.Event(), []
    assert house.get("/readyz").status_code == 200
    house.backend.loaded = lambda: asked.append(1) or (gate.wait(PATIENCE) and ["base"])
    try:
        assert [house.get("/readyz").status_code for _ in range(5)] == [200] * 5
        monkeypatch.setattr(api, "HANGING_SECONDS", 0)
        assert house.get("/readyz").status_code == 503
        assert (len(asked), house.get("/healthz").status_code) == (1, 200)
    finally:
        gate.set()


def test_a_prompt_that_is_too_long_is_not_tokenised(build):
    """Where a token stands for so many characters at most, a longer prompt is refused before it is counted."""
    house, counted = build(), []
    house.backend.longest_token = lambda: 4
    plain = house.backend.tokens
    house.backend.tokens = lambda prompt: counted.append(prompt) or plain(prompt)
    response = house.chat("x" * (4 * 2048 + 1))
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
    assert counted == []
    assert house.chat("x" * 4 * 2048).status_code == 200


@pytest.mark.parametrize("known", [True, False])
def test_tokens_are_counted_off_the_event_loop(build, known):
    """Rendering and counting run on threads of their own; a look at the registry for a template on the registry's."""
    house, threads = build(), []
    plain = house.backend.render
    house.backend.knows = lambda model: known
    house.backend.render = lambda *asked: threads.append(threading.current_thread().name) or plain(*asked)
    assert house.chat().status_code == 200
    assert threads[0].startswith("prompts" if known else "registry")
