"""What every backend does, on the one in this process and on a vLLM server.

The latter is a small server of these tests. It speaks vLLM's documented HTTP API, and its model is the same engine: so
both must also give the same answers. No vLLM runs here.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from loraloop.errors import BusyError, ConfigError, LoraloopError, ModelError, RegistryError
from loraloop.records import GenerationRequest, Grammar, Version
from loraloop.serve import run
from loraloop.serve.server import Server
from loraloop.serve.vllm import VllmBackend
from waiting import PATIENCE, until

MESSAGES = [{"role": "system", "content": "copy"}, {"role": "user", "content": "open the gate"}]
PROMPT = "copy\nopen the gate\n> "
BASE = "org/base-7b"
"""The base's name on the vLLM server."""


def vllm(engine: Any, tokenizer: Any, at: dict[str, Version]) -> FastAPI:
    """A server with vLLM's routes; ``at`` says which adapter lies at a path."""
    app = FastAPI()
    seen: dict[str, Any] = {"keys": set(), "bodies": []}
    app.state.seen = seen

    def card(name: str) -> dict[str, Any]:
        parent = None if name == "base" else BASE
        named = BASE if name == "base" else name
        return {"id": named, "object": "model", "root": named, "parent": parent, "max_model_len": engine.limit()}

    def error(status: int, message: str) -> JSONResponse:
        return JSONResponse({"error": {"message": message, "type": "BadRequestError", "code": status}}, status)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        seen["keys"].add(request.headers.get("authorization"))
        return {"object": "list", "data": [card(name) for name in engine.loaded()]}

    @app.post("/tokenize")
    async def tokenize(body: dict[str, Any]) -> dict[str, Any]:
        if "messages" in body:
            text = tokenizer.apply_chat_template(body["messages"], tokenize=False, add_generation_prompt=True)
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            ids = tokenizer(body["prompt"])["input_ids"]
        return {"count": len(ids), "max_model_len": engine.limit(), "tokens": ids}

    @app.post("/detokenize")
    async def detokenize(body: dict[str, Any]) -> dict[str, str]:
        return {"prompt": tokenizer.decode(body["tokens"])}

    @app.post("/v1/load_lora_adapter")
    async def load(body: dict[str, str]) -> Response:
        version = at.get(body["lora_path"])
        if version is None:
            return error(404, f"No adapter found for {body['lora_path']}")
        await asyncio.to_thread(engine.load, body["lora_name"], version)
        return PlainTextResponse(f"Success: LoRA adapter '{body['lora_name']}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(body: dict[str, str]) -> Response:
        try:
            engine.unload(body["lora_name"])
        except ModelError as fault:
            return error(404, str(fault))
        return PlainTextResponse(f"Success: LoRA adapter '{body['lora_name']}' removed successfully.")

    @app.post("/v1/completions")
    async def completions(body: dict[str, Any]) -> Response:
        seen["bodies"].append(body)
        model = "base" if body["model"] == BASE else body["model"]
        if model not in engine.loaded():
            return error(404, f"The model `{model}` does not exist.")
        ask = GenerationRequest(
            model=model, prompt=body["prompt"], max_tokens=body["max_tokens"], temperature=body["temperature"],
            top_p=body["top_p"], top_k=max(0, body["top_k"]), stop=tuple(body["stop"]), seed=body["seed"],
            logprobs=body["logprobs"],
            grammar=Grammar(schema=body["structured_outputs"]["json"]) if "structured_outputs" in body else None,
        )  # fmt: skip
        chunks = engine.generate(ask)
        try:
            first = await anext(chunks)
        except BusyError as fault:
            return error(503, str(fault))
        return StreamingResponse(events(first, chunks, body), media_type="text/event-stream")

    return app


async def events(first: Any, chunks: Any, body: dict[str, Any]) -> AsyncIterator[str]:
    """VLLM's stream of a completion, with the running usage."""

    async def every() -> AsyncIterator[Any]:
        yield first
        async for chunk in chunks:
            yield chunk

    count = 0
    async with contextlib.aclosing(chunks):
        async for chunk in every():
            count += chunk.tokens
            told = None
            if body["logprobs"] is not None:
                told = {
                    "tokens": [token for token, _, _ in chunk.logprobs],
                    "token_logprobs": [value for _, value, _ in chunk.logprobs],
                    "top_logprobs": [{**others, token: value} for token, value, others in chunk.logprobs],
                    "text_offset": [],
                }
            choice = {"index": 0, "text": chunk.text, "logprobs": told, "finish_reason": chunk.finish}
            yield f"data: {json.dumps({'choices': [choice], 'usage': {'completion_tokens': count}})}\n\n"
    yield f"data: {json.dumps({'choices': [], 'usage': {'completion_tokens': count}})}\n\n"
    yield "data: [DONE]\n\n"


@dataclass
class Made:
    """A backend, and the engine whose answers it gives."""

    backend: Any
    engine: Any
    app: Any = None
    resolved: list[str] = field(default_factory=list)


@pytest.fixture(params=["local", "vllm"])
def make(request, backend, base, versions, tmp_path) -> Any:
    """A function that makes a started backend of either kind."""
    with contextlib.ExitStack() as stack:

        def started(**bounds: Any) -> Made:
            made = Made(None, None)

            def resolve(name: str) -> Version:
                made.resolved.append(name)
                if name not in versions:
                    raise RegistryError(f"there is no {name}")
                return versions[name]

            if request.param == "local":
                made.backend = made.engine = backend(resolve=resolve, **bounds)
                return made
            made.engine = backend(**bounds)
            made.app = vllm(made.engine, base.tokenizer, {str(each.path): each for each in versions.values()})
            url = stack.enter_context(listening(made.app, tmp_path))
            made.backend = VllmBackend(url=url).attach(None, resolve)
            made.backend.check()
            made.backend.start()
            stack.callback(made.backend.close)
            return made

        yield started


@contextlib.contextmanager
def listening(app: FastAPI, home: Path) -> Any:
    """The application on a free port of loopback."""
    import threading

    settings = Server(port=0, keys=home / "none", drain_seconds=1)
    socket, server = settings.listen(), run.server(app, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    try:
        yield run.address("127.0.0.1", socket.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


def ask(model: str = "base", **changes: Any) -> GenerationRequest:
    """A greedy ask for twenty tokens."""
    return GenerationRequest(**{"model": model, "prompt": PROMPT, "max_tokens": 20, "temperature": 0.0} | changes)


class TestBackend:
    """The promises of :class:`loraloop.protocols.Backend`."""

    def test_answers(self, make, answer):
        """The base answers, and each adapter under its own name, exactly as the engine does, whatever the sampling."""
        made = make()
        asks = [
            ask(),
            ask("ocr@2"),
            ask("action@1", temperature=1.0, seed=3),
            ask(temperature=0.7, top_p=0.9, top_k=5, seed=4),
            ask(max_tokens=3),
            ask(stop=("gate", "x")),
        ]
        got = answer(made.backend, asks)
        assert [(one.text, one.tokens, one.finish) for one in got] == [
            (one.text, one.tokens, one.finish) for one in answer(made.engine, asks)
        ]
        assert got[0].text == "open the gate"
        assert got[1].text != got[0].text
        assert (got[4].text, got[4].tokens, got[4].finish) == ("ope", 3, "length")
        assert (got[5].text, got[5].finish) == ("open the ", "stop")

    def test_logprobs(self, make, answer):
        """Each token comes with its log-probability and as many alternatives as were asked for."""
        made = make()
        (told,) = answer(made.backend, [ask(logprobs=2, max_tokens=4)])
        (same,) = answer(made.engine, [ask(logprobs=2, max_tokens=4)])
        assert [(token, len(others)) for token, _, others in told.logprobs] == [(letter, 2) for letter in "open"]
        for mine, theirs in zip(told.logprobs, same.logprobs, strict=True):
            assert mine[1] == pytest.approx(theirs[1], abs=1e-4)
            assert mine[2] == pytest.approx(theirs[2], abs=1e-4)
        assert answer(made.backend, [ask()])[0].logprobs == ()

    def test_a_held_answer(self, make, answer):
        """An answer obeys the schema that it is held to."""
        schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}
        (held,) = answer(make().backend, [ask(grammar=Grammar(schema=schema), max_tokens=200)])
        assert {type(each) for each in json.loads(held.text)} == {bool}

    def test_adapters_come_and_go(self, make, versions):
        """An adapter that was loaded is listed, one that was unloaded is not, and one that is not there cannot go."""
        backend = make().backend
        assert list(backend.loaded()) == ["base"]
        backend.load("ocr@1", versions["ocr@1"])
        assert set(backend.loaded()) == {"base", "ocr@1"}
        backend.unload("ocr@1")
        assert list(backend.loaded()) == ["base"]
        with pytest.raises(ModelError, match="ocr@1"):
            backend.unload("ocr@1")

    def test_a_registered_adapter_comes_by_use(self, make, answer):
        """A version that is asked for and not there is fetched once; the counters tell."""
        made = make()
        answer(made.backend, [ask("ocr@2"), ask("ocr@2")], together=False)
        assert "ocr@2" in made.backend.loaded()
        assert made.resolved == ["ocr@2"]
        stats = made.backend.stats()
        assert (stats["misses"], stats["hits"], stats["loads"]) == (1, 1, 1)

    def test_what_is_not_there(self, make, answer):
        """A version that nobody knows is the registry's error, and the next request is answered."""
        made = make()
        with pytest.raises(LoraloopError, match="nobody@1"):
            answer(made.backend, [ask("nobody@1")])
        assert answer(made.backend, [ask()])[0].finish == "stop"

    def test_prompts(self, make):
        """Conversations are rendered as the model was trained to be asked, and counted as it sees them."""
        backend = make().backend
        assert backend.render(MESSAGES, "base") == "copy\nopen the gate\n> "
        assert backend.render(MESSAGES, "ocr@1") == PROMPT
        assert backend.tokens(PROMPT) == len(PROMPT.encode()) + 1
        assert backend.tokens("") == 1
        assert backend.limit() == 2048

    def test_leaving_frees_the_place(self, make):
        """Whoever stops listening ends the answer."""
        made = make()

        async def leave() -> None:
            chunks = made.backend.generate(ask("ocr@2", max_tokens=1500))
            await anext(chunks)
            await chunks.aclose()
            while made.engine.stats()["active"]:
                await asyncio.sleep(0.01)

        asyncio.run(asyncio.wait_for(leave(), PATIENCE))

    def test_a_deadline(self, make, answer):
        """An answer that takes too long ends as it is."""
        made = make()
        seconds = 0.1

        def cut() -> Any:
            nonlocal seconds
            seconds *= 2
            with contextlib.suppress(BusyError):  # a slow machine takes longer to begin, and to end
                return answer(made.backend, [ask("ocr@2", max_tokens=1500, deadline=seconds)])[0]

        late = until(cut, "an answer that has begun before its deadline")
        assert late.finish == "length"
        assert late.tokens < 1500

    def test_a_full_queue(self, make):
        """More than fit are refused at once, and the others are answered."""
        made = make(max_batch=1, max_queue=1)

        async def all_at_once() -> list[Any]:
            async def one() -> str:
                return "".join([chunk.text async for chunk in made.backend.generate(ask(max_tokens=400))])

            return await asyncio.gather(*(one() for _ in range(6)), return_exceptions=True)

        answers = asyncio.run(all_at_once())
        assert {type(each) for each in answers} == {str, BusyError}
        assert {each for each in answers if isinstance(each, str)} == {"open the gate"}


def test_a_server_that_is_not_there(tmp_path):
    """A vLLM server that does not answer is told before anything is served, with the line that starts it."""
    settings = Server(port=0, keys=tmp_path / "none")
    with settings.listen() as taken:
        url = run.address("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"serve\.url=.*vllm serve"):
        VllmBackend(url=url).check()


def test_the_key_comes_from_the_environment(backend, base, tmp_path, monkeypatch):
    """The vLLM server's key is read from a variable, so that no configuration that is logged holds it."""
    monkeypatch.setenv("MY_KEY", "secret")
    app = vllm(backend(), base.tokenizer, {})
    with listening(app, tmp_path) as url:
        remote = VllmBackend(url=url, key_variable="MY_KEY").attach(None)
        remote.start()
        remote.close()
    assert app.state.seen["keys"] == {"Bearer secret"}


def test_a_restarted_server(backend, base, versions, tmp_path, answer):
    """An adapter that the vLLM server has forgotten costs one failed answer; then it is loaded again."""
    engine = backend()
    app = vllm(engine, base.tokenizer, {str(each.path): each for each in versions.values()})
    with listening(app, tmp_path) as url:
        remote = VllmBackend(url=url).attach(None, versions.__getitem__)
        remote.start()
        before = answer(remote, [ask("ocr@1")])
        engine.unload("ocr@1")
        with pytest.raises(ModelError, match="ocr@1 with 404"):
            answer(remote, [ask("ocr@1")])
        assert answer(remote, [ask("ocr@1")]) == before
        remote.close()
