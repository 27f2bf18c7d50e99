"""Errors over HTTP: status, type, param and code as OpenAI's API shapes them."""

from __future__ import annotations

import json

import httpx2
import openai
import pytest

from loraloop.errors import BusyError, ModelError


def error(response: httpx2.Response) -> tuple[int, str, str | None, str | None]:
    """Status, type, parameter and code."""
    told = response.json()["error"]
    assert told["message"]
    return response.status_code, told["type"], told["param"], told["code"]


def test_an_unknown_model(shared):
    """A model that is not there is a 404 whose parameter is the model, which the official client raises by name."""
    with pytest.raises(openai.NotFoundError) as caught:
        shared.openai().chat.completions.create(model="gpt-4", messages=[{"role": "user", "content": "x"}])
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert "GET /v1/models" in str(caught.value)


@pytest.mark.parametrize("model", ["ocr@99", "agent:nobody", "ocr@nobody"])
def test_an_unknown_version_alias_or_role(shared, model):
    """So are a version, an alias and a role that do not exist."""
    assert error(shared.chat(model=model)) == (404, "invalid_request_error", "model", "model_not_found")


def test_too_long_a_prompt(shared):
    """A prompt without room for an answer is an error that says its tokens and the limit."""
    response = shared.chat("word " * 3000)
    assert error(response) == (400, "invalid_request_error", "messages", "context_length_exceeded")
    assert "2048 tokens" in response.text
    assert "3002 tokens" in response.text
    text = shared.post("/v1/completions", {"model": "base", "prompt": "x" * 300_000})
    assert error(text) == (400, "invalid_request_error", "prompt", "context_length_exceeded")
    assert "300000 characters" in text.text


@pytest.mark.parametrize(("words", "given"), [(3, 512), (1800, 246)])
def test_too_long_an_answer(shared, words, given):
    """More tokens than the server gives, or than fit beside the prompt, are cut to those, as the API does."""
    assert shared.chat("word " * words, max_tokens=4096).status_code == 200
    assert shared.backend.asked[-1].max_tokens == given


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"{", {"content-type": "application/json"}),
        (b"", {"content-type": "application/json"}),
        (b"[]", {"content-type": "application/json"}),
        (b"\xff\xfe{}", {"content-type": "application/json"}),
        (b'{"model": "\xe4"}', {"content-type": "application/json"}),
        (b"[" * 100_000, {"content-type": "application/json"}),
        (b'{"n": ' + b"9" * 5000 + b"}", {"content-type": "application/json"}),
        (b'{"model": "base"}', {"content-type": "text/plain"}),
        (b'{"model": "base"}', {}),
    ],
)
def test_what_is_no_json_object(shared, body, headers):
    """A body that is not a JSON object, or not sent as one, is a 400 in OpenAI's shape."""
    response = shared.http.post("/v1/chat/completions", content=body, headers=headers)
    assert error(response) == (400, "invalid_request_error", None, "invalid_json")


@pytest.mark.parametrize(
    ("more", "said", "code"),
    [
        ({}, "prompt: field required", "missing_required_parameter"),
        ({"prompt": 5}, "prompt: input should be a valid string", "invalid_value"),
        ({"prompt": []}, "prompt: list should have at least 1 item", "invalid_value"),
    ],
)
def test_a_prompt_that_is_none(shared, more, said, code):
    """What is wrong with a prompt is told, though another route takes no parameter of that name."""
    response = shared.post("/v1/completions", {"model": "base", **more})
    assert error(response) == (400, "invalid_request_error", "prompt", code)
    assert response.json()["error"]["message"].startswith(said)


def test_half_a_character(shared):
    """A lone surrogate, as a value or as a name, is a 400 and not a crash on the way back."""
    body = json.dumps({"model": "base", "messages": [{"role": "user", "content": "\ud800"}], "\udfff": 1})
    response = shared.http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400


@pytest.mark.parametrize(
    ("path", "more", "meant"),
    [
        ("completions", {"model": "ocr@champoin"}, "'ocr@champoin' does not exist (did you mean ocr@champion?)"),
        ("completions", {"model": "agent:validater"}, "(did you mean agent:validator?)"),
        ("completions", {"model": "gqvz"}, "'gqvz' does not exist: "),
        ("completions", {"max_token": 5}, "max_token is not a parameter here (did you mean max_tokens?): leave it out"),
        ("chat/completions", {"respons_format": {}}, "(did you mean response_format?)"),
        ("responses", {"max_tokens": 5}, "(did you mean max_output_tokens?)"),
        ("completions", {"min_tokens": 5}, "min_tokens is not a parameter here: leave it out"),
        ("completions", {"qqq": 5}, "qqq is not a parameter here: leave it out"),
    ],
)
def test_what_was_probably_meant(shared, path, more, meant):
    """A name that is nearly a model or a parameter leads to it; one that is like none is not guessed."""
    prompt = {"completions": "prompt", "responses": "input"}.get(path, "messages")
    said = [{"role": "user", "content": "x"}] if prompt == "messages" else "x"
    response = shared.post(f"/v1/{path}", {"model": "base", prompt: said} | more)
    assert response.status_code in (400, 404)
    assert meant in response.json()["error"]["message"]


def test_a_slash_too_many(shared):
    """``/v1/models/`` is no address, as with OpenAI, and the error says which one is."""
    response = shared.get("/v1/models/")
    assert error(response) == (404, "invalid_request_error", None, "unknown_url")
    assert "Invalid URL (GET /v1/models/): without the slash" in response.text


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/nothing", 404), ("GET", "/v1/completions", 405)])
def test_what_is_no_route(shared, method, path, status):
    """An address or method that does not exist has OpenAI's shape too."""
    assert error(shared.http.request(method, path))[:2] == (status, "invalid_request_error")


def test_a_full_queue(house):
    """Overload is a 429 that says when to come back, and leaves no session; nothing was served."""
    house.backend.fault = BusyError("the queue is full (serve.max_queue=64)")
    for stream in (False, True):
        response = house.chat(stream=stream)
        assert error(response) == (429, "rate_limit_error", None, "overloaded")
        assert int(response.headers["retry-after"]) >= 1
    assert house.sessions.kept == []


def test_an_adapter_that_cannot_answer(house):
    """An adapter that fails to load is a 503 without the server's paths, and is kept as an error."""
    house.backend.fault = ModelError("/srv/secret/adapter_model.safetensors holds NaN")
    response = house.chat(model="ocr@7")
    assert error(response) == (503, "server_error", "model", "model_unavailable")
    assert "secret" not in response.text
    assert [(kept.status, kept.answered) for kept in house.sessions.kept] == [("error", "ocr@7")]


def test_a_bug(house):
    """What nobody foresaw is a 500 in OpenAI's shape that tells nothing of the inside."""
    house.backend.fault = ZeroDivisionError("secret")
    response = house.chat()
    assert error(response) == (500, "server_error", None, "internal_error")
    assert "secret" not in response.text
    assert house.backend.answering == 0


def test_a_registry_that_is_away(house):
    """A name that was never looked up is a 503 while the registry is away; known ones go on answering."""
    assert house.chat(model="ocr@champion").status_code == 200
    house.registry.down = True
    assert error(house.chat(model="ocr@8")) == (503, "server_error", "model", "registry_unavailable")
    assert house.chat(model="ocr@champion").json()["model"] == "ocr@7"
    assert house.chat(model="base").status_code == 200


def test_too_large_a_body(build):
    """A body over the limit is a 413, whether it says its length or not, and is not read to its end."""
    house = build(max_body_bytes=2000)
    body = json.dumps({"model": "base", "prompt": "x" * 3000}).encode()
    headers = {"content-type": "application/json"}
    for content in (body, iter([body[:1500], body[1500:]])):
        response = house.http.post("/v1/completions", content=content, headers=headers)
        assert error(response) == (413, "invalid_request_error", None, "body_too_large")
    assert house.post("/v1/completions", {"model": "base", "prompt": "x"}).status_code == 200


def test_too_many_at_once(build):
    """Requests over the limit are told to come back, and nothing waits for them; health still answers."""
    house = build(max_in_flight=1)
    with house.openai().chat.completions.create(
        model="base", messages=[{"role": "user", "content": "never"}], stream=True
    ) as stream:
        next(iter(stream))
        assert error(house.chat()) == (429, "rate_limit_error", None, "overloaded")
        assert house.get("/healthz").status_code == 200


def test_too_often(build):
    """More requests than the rate are a 429 that says when to come back."""
    house = build(rate="3/hour")
    assert [house.chat().status_code for _ in range(4)] == [200, 200, 200, 429]
    response = house.chat()
    assert error(response) == (429, "rate_limit_error", None, "rate_limit_exceeded")
    assert 3000 < int(response.headers["retry-after"]) <= 3600
