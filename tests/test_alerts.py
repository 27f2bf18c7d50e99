"""Alerts: what is sent, and what is never written down."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from loraloop.alerts import Alerts
from loraloop.errors import ConfigError

SECRET = "s3cr3t-pass"  # noqa: S105 - one that is looked for in logs


@pytest.fixture
def service() -> Iterator[tuple[str, list[Any]]]:
    """A webhook on this machine: its address, and what it was sent."""
    sent: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"json://user:{SECRET}@127.0.0.1:{server.server_port}/hook", sent
    server.shutdown()
    server.server_close()


def test_an_alert_reaches_the_service_and_the_log(service, caplog):
    """An alert is posted with its title and text, and the log has its title."""
    url, sent = service
    caplog.set_level(logging.INFO)
    Alerts(urls=url).send("loraloop validator: rollback", "version 2 was worse")
    assert [(each["title"], each["message"]) for each in sent] == [
        ("loraloop validator: rollback", "version 2 was worse")
    ]
    assert "alert to 1 services: loraloop validator: rollback" in caplog.text


def test_a_service_that_is_away_stops_nothing_and_shows_no_secret(service, caplog):
    """A service that cannot be reached is told of by number and kind, the others still get the alert."""
    url, sent = service
    caplog.set_level(logging.DEBUG)
    Alerts(urls=f"json://user:{SECRET}@127.0.0.1:9/gone {url}").send("title", "text")
    assert len(sent) == 1
    assert "alerts.urls: number 1 (json://...) did not take this alert" in caplog.text
    assert SECRET not in caplog.text


def test_a_service_that_hangs_is_left_to_itself(caplog, monkeypatch):
    """A service that has not answered within the time for all of them is a warning, and the loop goes on."""
    monkeypatch.setattr("loraloop.alerts.SECONDS", 0.05)
    over = threading.Event()

    class Hanging(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            over.wait()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hanging)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Alerts(urls=f"json://user:{SECRET}@127.0.0.1:{server.server_port}").send("title", "text")
    assert "alerts.urls: number 1 (json://...) has not answered in time" in caplog.text
    assert SECRET not in caplog.text
    over.set()
    server.shutdown()
    server.server_close()


def test_without_services_nothing_is_said_twice(caplog):
    """No address at all is allowed, and the log does not repeat what the sender of an alert prints."""
    alerts = Alerts(urls="")
    alerts.check()
    alerts.send("title", "text")
    assert not caplog.records


@pytest.mark.parametrize("url", [f"nosuch://user:{SECRET}@host", f"no address {SECRET}"])
def test_an_unknown_service_is_refused_without_its_secret(url):
    """An address that apprise does not understand is refused before any work; the message does not repeat it."""
    with pytest.raises(ConfigError, match=r"appriseit\.com") as refused:
        Alerts(urls=(url,)).check()
    assert SECRET not in str(refused.value)
    assert SECRET not in repr(Alerts(urls=(url,)))
