"""Every answer is a session, kept before the answer ends; a client that leaves gives its place back."""

from __future__ import annotations

import json
import socket

import openai
import pytest

from loraloop.errors import BusyError
from loraloop.records import Chunk
from waiting import until

MESSAGES = [{"role": "user", "content": "one two"}]


def test_an_answer_names_its_session(house):
    """Session and rating link are in the headers and in the body, streamed or not, and lead to what was kept."""
    raw = house.openai().chat.completions.with_raw_response.create(model="ocr@champion", messages=MESSAGES)
    answer = raw.parse()
    (kept,) = house.sessions.kept
    assert raw.headers["x-loraloop-session"] == answer.loraloop["session"] == kept.id
    assert raw.headers["x-loraloop-rate"] == answer.loraloop["rate"] == f"/rate/{kept.id}?signature=s"
    assert (kept.asked, kept.answered, kept.status, kept.role) == ("ocr@champion", "ocr@7", "ok", None)
    assert (kept.prompt, kept.answer) == (MESSAGES, answer.choices[0].message.content)
    assert (kept.prompt_tokens, kept.completion_tokens) == (4, 4)
    assert 0 < kept.first_token <= kept.duration


def test_a_stream_is_kept_before_it_ends(house):
    """When the chunk with the reason of the end arrives, the session is there already."""
    stream = house.openai().chat.completions.create(model="base", messages=MESSAGES, stream=True)
    for chunk in stream:
        if chunk.choices[0].finish_reason:
            assert [kept.id for kept in house.sessions.kept] == [chunk.loraloop["session"]]
    assert house.sessions.kept[0].answer == "base user: one two "


def test_an_answer_that_cannot_be_kept_is_not_given(house):
    """With a full disk there is no answer: a 503 at once, or an error in the stream instead of its end."""
    house.sessions.full = True
    response = house.chat()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "session_not_kept")
    with pytest.raises(openai.APIError, match="could not be kept"):
        list(house.openai().chat.completions.create(model="base", messages=MESSAGES, stream=True))
    raw = house.chat(stream=True).text
    assert "[DONE]" not in raw
    assert 'finish_reason":"stop' not in raw
    house.sessions.full = False
    assert house.chat().status_code == 200


def test_refused_requests_are_no_sessions(house):
    """Nothing is kept of a request that no model was asked for."""
    house.chat(model="nobody")
    house.chat(n=0)
    house.chat("word " * 3000)
    assert house.sessions.kept == []


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_hangs_up_frees_its_place(house, stream):
    """A socket closed in the middle of an answer ends the generation and keeps what there was as cancelled."""
    body = json.dumps({"model": "base", "messages": [{"role": "user", "content": "never"}], "stream": stream}).encode()
    host, port = house.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        client.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        if stream:
            received = b""
            while b"base " not in received:
                received += client.recv(4096)
        until(lambda: house.backend.answering == 1, "the answer has begun")
    until(lambda: house.backend.answering == 0, "the answer has ended")
    until(lambda: len(house.sessions.kept) == 1, "the session is kept")
    assert (house.sessions.kept[0].status, house.sessions.kept[0].answer) == ("cancelled", "base ")
    until(lambda: b'status="499"' in house.metrics.text(), "the request is counted")
    assert b"loraloop_requests_in_flight 0.0" in house.metrics.text()


def test_an_answer_cut_at_its_deadline_is_a_timeout(build):
    """An answer that ends for its length without having it was cut by the deadline, and is kept as such."""

    async def late(ask):
        yield Chunk(text="half", tokens=1)
        yield Chunk(text="", finish="length")

    house = build()
    house.backend.generate = late
    assert house.chat().json()["choices"][0]["finish_reason"] == "length"
    assert house.sessions.kept[0].status == "timeout"


@pytest.mark.parametrize("stream", [True, False])
def test_an_answer_that_a_full_server_breaks_off_blames_no_version(build, stream):
    """A backend that is full in the middle of an answer leaves an error and a cancelled session with what there was."""

    async def broken(ask):
        yield Chunk(text="half", tokens=1)
        raise BusyError("the server stops")

    house = build()
    house.backend.generate = broken
    response = house.chat(stream=stream)
    assert "the server stops" in response.text
    assert "[DONE]" not in response.text
    assert [(kept.status, kept.answer) for kept in house.sessions.kept] == [("cancelled", "half")]


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("at", [0, 1])
def test_a_crash_is_an_error_of_the_version(build, stream, at):
    """What nobody foresaw in generation is kept as an error, not as a client that left, and told as one."""

    async def crashing(ask):
        for _ in range(at):
            yield Chunk(text="half", tokens=1)
        raise KeyError("usage")

    house = build()
    house.backend.generate = crashing
    response = house.chat(stream=stream)
    assert '"internal_error"' in response.text
    assert "[DONE]" not in response.text
    assert [(kept.status, kept.answer) for kept in house.sessions.kept] == [("error", "half" * at)]
    assert 'loraloop_sessions_total{model="base",status="error"} 1.0' in house.metrics.text().decode()
