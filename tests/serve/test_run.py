"""The application on a socket."""

from __future__ import annotations

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import PlainTextResponse as TextResponse
from fastapi.testclient import TestClient
from pydantic import ValidationError

from loraloop.feedback.review_access import keep
from loraloop.serve import run
from loraloop.serve.server import Server


@pytest.mark.parametrize(
    ("proxies", "client", "secure"),
    [((), "127.0.0.1", False), (("127.0.0.1",), "127.0.0.1", True), (("10.0.0.0/8",), "10.1.2.3", True),
     (("10.0.0.0/8",), "127.0.0.1", False)],
)  # fmt: skip
def test_a_proxy_that_is_named_is_believed(proxies, client, secure, tmp_path):
    """The cookie of a page is secure, and a client has its own address, behind a named proxy that speaks TLS alone."""
    app = FastAPI()

    @app.get("/")
    def page(request: Request):
        response = TextResponse(request.client.host)
        keep(response, request, "visit")
        return response

    config = run.server(app, Server(keys=tmp_path / "keys.json", forwarded_allow_ips=proxies)).config
    config.load()
    with TestClient(config.loaded_app, client=(client, 5000)) as browser:
        seen = browser.get("/", headers={"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7"})
    assert ("Secure" in seen.headers["set-cookie"]) is secure
    assert seen.text == ("192.0.2.7" if secure else client)


@pytest.mark.parametrize("proxy", ["*", "proxy.example.org", "10.0.0.1/8"])
def test_only_addresses_are_proxies(proxy):
    """Everybody, a name and a network with host bits are refused, with what to write."""
    with pytest.raises(ValidationError, match=r"write it as 127\.0\.0\.1 or"):
        Server(forwarded_allow_ips=(proxy,))
