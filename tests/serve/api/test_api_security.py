"""Who may ask what."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest
from fastapi import APIRouter

from loraloop.errors import ConfigError
from loraloop.feedback.form import router
from loraloop.feedback.settings import Feedback
from loraloop.serve import connection
from loraloop.serve.guard import needs
from loraloop.serve.keys import SCOPES, Keys
from loraloop.serve.server import Server
from waiting import PATIENCE, until

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


def test_clients_are_kept_apart(build, tmp_path):
    """No client goes on with another key's conversation, rates its answer, or is answered from what was read for it."""
    keys = Keys(tmp_path / "keys.json")
    secrets = {name: keys.add(name, ["infer", "feedback"]) for name in ("one", "other")}
    secrets["desk"] = keys.add("desk", ["feedback"])
    store = Feedback(folder=tmp_path).open()
    house = build(sessions=store, routers=[router(store)])
    body = {"model": "base", "user": "ann", "metadata": {"conversation": "c"}}

    def ask(name: str, messages: list[dict[str, str]], **changes: Any) -> dict[str, Any]:
        made = {**body, "messages": messages, **changes}
        return house.post("/v1/chat/completions", made, headers=bearer(secrets[name])).json()

    question = [{"role": "user", "content": "x"}]
    first = ask("one", question)
    reply = {"role": "assistant", "content": first["choices"][0]["message"]["content"]}
    goes_on = [*question, reply, {"role": "user", "content": "y"}]
    asked = [first, *(ask(name, goes_on, metadata=None) for name in ("one", "other")), ask("other", question)]
    own, followed, other, named = (store.session(each["id"]).conversation_id for each in asked)
    assert own == followed
    assert [each.cache_scope for each in house.backend.asked] == ["one", "one", "other", "other"]
    assert len({own, other, named}) == 3
    rated = {"session": first["id"], "rating": 1, "level": "conversation"}
    statuses = [
        house.post("/v1/feedback", rated | change, headers=bearer(secrets[name])).status_code
        for name, change in (("other", {"user": "one"}), ("one", {}), ("desk", {"level": "answer"}))
    ]
    store.close()
    assert statuses == [404, 200, 200]


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


def test_revoking_the_last_key_opens_nothing_here_either(build, tmp_path):
    """On loopback too a keys file without a key, or one that is lost, lets nobody in, until ``server.open`` says so."""
    file = tmp_path / "keys.json"
    keys, house = Keys(file), build()
    assert house.get("/v1/models").status_code == 200
    keys.add("a", ["admin"])
    keys.revoke("a")
    assert house.get("/v1/models").status_code == 401
    file.unlink()
    assert house.get("/v1/models").status_code == 401
    file.write_text("[]")
    assert build().get("/v1/models").status_code == 401
    assert build(open=True).get("/v1/models").status_code == 200
    with pytest.raises(ConfigError, match=r"server\.open=true"):
        Server(host=EVERYWHERE, port=0, keys=file, open=True).check()


@pytest.mark.parametrize("header", ["X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via"])
def test_without_keys_no_proxy_is_answered(shared, header):
    """A request that a proxy passed on is not from this machine, whatever host it names."""
    response = shared.get("/v1/models", headers={header: "127.0.0.1"})
    assert (response.status_code, response.json()["error"]["code"]) == (403, "forwarded")


def spoken(house, text: str) -> bytes:
    """What the server sends on a connection until it closes that."""
    host, port = house.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.sendall(text.encode())
        received = b""
        while data := client.recv(4096):
            received += data
    return received


def test_without_keys_nginx_is_not_this_machine(shared):
    """nginx, as it comes, names its upstream as the host and speaks HTTP/1.0."""
    assert spoken(shared, "GET /v1/models HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n").startswith(b"HTTP/1.1 403 ")


@pytest.mark.fault("half-sent request", "serve", "the connection is closed after 10 s")
@pytest.mark.parametrize("text", ["", "GET / HTTP/1.1\r\nhost: ", "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /"])
def test_a_half_sent_head_is_timed_out(shared, monkeypatch, text):
    """A connection whose request's head does not come to its end is closed, the first one or a later one."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    assert spoken(shared, text)[:15] == (b"HTTP/1.1 200 OK" if "healthz" in text else b"")


def test_a_body_that_was_refused_holds_no_connection(guarded, monkeypatch):
    """A client that goes on to send the body of a refused request is cut off."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    house, _ = guarded
    host, port = house.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE) as client:
        client.sendall(f"POST /v1/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: 1000000\r\n\r\n{{".encode())
        assert client.recv(4096).startswith(b"HTTP/1.1 401 ")

        def is_cut_off() -> bool:
            try:
                client.sendall(b"x")
            except OSError:
                return True
            return False

        until(is_cut_off, "the connection ends")


def test_one_connection_too_many_is_closed(build, monkeypatch):
    """Beyond the most connections a new one is closed, and the open ones go on."""
    monkeypatch.setattr(connection, "CONNECTIONS", 1)
    house = build()
    assert house.get("/healthz").status_code == 200
    assert spoken(house, "") == b""
    assert house.get("/healthz").status_code == 200


def test_an_open_route_takes_a_small_body_and_few_places(build):
    """Who has no key can send no more than the route asks for, and takes a quarter of the places at most."""
    gate = threading.Event()
    routes = APIRouter()

    @routes.post("/form", openapi_extra=needs() | {"x-body-bytes": 100})
    async def form() -> None:
        await asyncio.to_thread(gate.wait, PATIENCE)

    house = build(routers=[routes], max_in_flight=4)
    large = house.http.post("/form", content=b"x" * 101)
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(house.http.post, "/form")
        until(lambda: b"loraloop_requests_in_flight 1.0" in house.metrics.text(), "a request is in flight")
        assert house.http.post("/form").status_code == 429
        assert house.get("/v1/models").status_code == 200
        gate.set()
        assert first.result(PATIENCE).status_code == 200


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
