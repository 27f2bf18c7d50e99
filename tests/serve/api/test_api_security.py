"""Who may ask what."""

from __future__ import annotations

import logging
import socket

import openai
import pytest
from fastapi import APIRouter

from loraloop.errors import ConfigError
from loraloop.serve.guard import needs
from loraloop.serve.keys import SCOPES, Keys
from loraloop.serve.server import Server
from waiting import PATIENCE

EVERYWHERE = "0.0.0.0"  # noqa: S104
extra = APIRouter()


@extra.post("/feedback", openapi_extra=needs("feedback"))
async def feedback() -> None:
    """A route for ratings, as another package brings it."""


@extra.get("/forgotten")
async def forgotten() -> None:
    """A route that says nothing of who may use it."""


@pytest.fixture
def guarded(build, tmp_path):
    """A server with one key of each scope, and the keys."""
    keys = Keys(tmp_path / "keys.json")
    secrets = {scope: keys.add(scope, [scope]) for scope in SCOPES}
    return build(routers=[extra]), secrets


def bearer(secret: str) -> dict[str, str]:
    """The header that carries a key."""
    return {"authorization": f"Bearer {secret}"}


def test_every_route_opens_to_its_scopes_alone(guarded):
    """The whole matrix: each route of the OpenAPI document with no key, a wrong one, and one of each scope."""
    house, secrets = guarded
    document = house.app.openapi()
    seen: dict[str, set[str]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            asked = operation.get("security")
            opening = {scope for choice in asked or [] for scope in choice["key"]} | {"admin"}

            def status(headers: dict[str, str], method: str = method, path: str = path) -> int:
                address = path.replace("{model}", "base")
                return house.http.request(method, address, headers=headers, json={}).status_code

            if asked == []:
                assert status({}) == 200, path
                continue
            assert [status({}), status(bearer("ll-wrong"))] == [401, 401], path
            answers = {scope: status(bearer(secret)) for scope, secret in secrets.items()}
            assert {scope for scope, code in answers.items() if code != 403} == opening, path
            seen[path] = opening
    assert seen["/v1/chat/completions"] == {"infer", "admin"}
    assert seen["/v1/load_lora_adapter"] == seen["/v1/unload_lora_adapter"] == seen["/forgotten"] == {"admin"}
    assert seen["/metrics"] == {"registry", "admin"}
    assert seen["/feedback"] == {"feedback", "admin"}


def test_the_official_client_sends_the_key(guarded):
    """The ``openai`` client gets in with its ``api_key``, and raises its own errors without the right one."""
    house, secrets = guarded
    messages = [{"role": "user", "content": "x"}]
    assert house.openai(secrets["infer"]).chat.completions.create(model="base", messages=messages).model == "base"
    with pytest.raises(openai.AuthenticationError):
        house.openai("ll-wrong").chat.completions.create(model="base", messages=messages)
    with pytest.raises(openai.PermissionDeniedError, match="lacks the scope infer or admin"):
        house.openai(secrets["feedback"]).chat.completions.create(model="base", messages=messages)


def test_a_body_is_not_read_before_the_key(guarded):
    """A client without a key is turned away before it has sent its body."""
    house, _ = guarded

    host, port = house.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.sendall(f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000\r\n\r\n{{".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")


def test_rates_are_counted_per_key(build, tmp_path):
    """One key's requests do not use up another's."""
    keys = Keys(tmp_path / "keys.json")
    first, second = keys.add("a", ["infer"]), keys.add("b", ["infer"])
    house = build(rate="2/hour")
    codes = [house.get("/v1/models", headers=bearer(secret)).status_code for secret in (first, first, first, second)]
    assert codes == [200, 200, 429, 200]


def test_guessing_is_counted_too(build, tmp_path):
    """Requests with wrong keys use up the rate of their address."""
    Keys(tmp_path / "keys.json").add("a", ["infer"])
    house = build(rate="2/hour")
    codes = [house.get("/v1/models", headers=bearer(f"ll-{n}")).status_code for n in range(3)]
    assert codes == [401, 401, 429]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8000", "", "[::1].evil"])
def test_without_keys_only_this_machines_names_are_answered(shared, host):
    """A page elsewhere that resolves its own name to this machine reads nothing (DNS rebinding)."""
    response = shared.get("/v1/models", headers={"host": host})
    assert response.status_code == 403
    assert shared.get("/v1/models", headers={"host": "localhost"}).status_code == 200


def test_another_address_demands_a_key(tmp_path):
    """A server that others reach does not start without a key; one on loopback does."""
    file = tmp_path / "keys.json"
    for host in (EVERYWHERE, "::", "192.168.1.5", "example.org"):
        with pytest.raises(ConfigError, match="stage=keys"):
            Server(host=host, port=0, keys=file).check()
    for host in ("127.0.0.1", "localhost"):
        Server(host=host, port=0, keys=file).check()
    Keys(file).add("a", ["infer"])
    Server(host=EVERYWHERE, port=0, keys=file).check()


def test_taking_back_the_last_key_opens_nothing(build, tmp_path):
    """A server that others reach stays shut when its last key is revoked while it runs."""
    keys = Keys(tmp_path / "keys.json")
    keys.add("a", ["infer"])
    house = build(host=EVERYWHERE)
    assert house.get("/v1/models").status_code == 401
    keys.revoke("a")
    assert house.get("/v1/models").status_code == 401


def test_a_taken_port_is_told(house, tmp_path):
    """A port in use is an error before anything is loaded."""
    port = int(house.url.rpartition(":")[2])
    with pytest.raises(ConfigError, match=rf"server\.port={port}"):
        Server(port=port, keys=tmp_path / "none").check()


def test_nothing_secret_is_logged(guarded, caplog):
    """Neither a key nor a prompt nor an answer nor a rating link is in any log line, whatever happens."""
    caplog.set_level(logging.DEBUG)
    house, secrets = guarded
    ask = {"model": "base", "prompt": "my-password-hunter2"}
    house.post("/v1/completions", ask, headers=bearer(secrets["infer"]))
    house.post("/v1/completions", {**ask, "n": 3}, headers=bearer(secrets["infer"]))
    house.sessions.full = True
    house.post("/v1/completions", ask, headers=bearer(secrets["infer"]))
    house.get("/v1/models?key=my-password-hunter2", headers=bearer("ll-my-password-hunter2"))
    ours = [record for record in caplog.records if record.name.startswith(("loraloop", "uvicorn", "fastapi"))]
    assert any("/v1/completions 200" in record.getMessage() for record in ours)
    text = "\n".join(logging.Formatter().format(record) for record in ours)
    assert "hunter2" not in text
    assert not any(secret in text for secret in secrets.values())
    assert "signature" not in text
