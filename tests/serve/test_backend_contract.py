"""What every backend does, on the one in this process, on a stand-in of a vLLM server, and on a real vLLM server.

The stand-in is a small server of these tests. It speaks vLLM's documented HTTP API, and its model is the same engine:
so both must also give the same answers. ``make test-vllm`` starts a real one, on SmolLM2-135M; its greedy answers are
those of the engine too.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from loraloop.core import prompts
from loraloop.core.chat_templates import BUILT_IN
from loraloop.core.messages import read_all
from loraloop.errors import BusyError, ConfigError, GrammarError, LoraloopError, ModelError, RegistryError
from loraloop.records import GenerationRequest, Grammar, Version
from loraloop.serve import run
from loraloop.serve.errors import ApiError
from loraloop.serve.remote import _chunk
from loraloop.serve.server import Server
from loraloop.serve.vllm import VllmBackend
from vllm_server import running
from waiting import PATIENCE, until

MESSAGES = [{"role": "system", "content": "copy"}, {"role": "user", "content": "open the gate"}]
TOOLS = [{"type": "function", "function": {"name": "open_gate", "parameters": {"type": "object", "properties": {}}}}]
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
        ids = tokenizer(body["prompt"])["input_ids"]
        return {"count": len(ids), "max_model_len": engine.limit(), "tokens": ids}

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

    @app.post("/reset_prefix_cache")
    async def reset_prefix_cache() -> Response:
        await asyncio.to_thread(engine.forget)
        return Response()

    @app.post("/v1/completions")
    async def completions(body: dict[str, Any]) -> Response:
        seen["bodies"].append(body)
        model = "base" if body["model"] == BASE else body["model"]
        if model not in engine.loaded():
            return error(404, f"The model `{model}` does not exist.")
        if any(int(token) >= engine.limit() for token in body["logit_bias"]):
            return error(400, "logit_bias contains out-of-vocab token ids")
        prompt = tokenizer.decode(body["prompt"]).removeprefix(tokenizer.bos_token)
        ask = GenerationRequest(
            model=model, prompt=prompt, max_tokens=body["max_tokens"], temperature=body["temperature"],
            top_p=body["top_p"], top_k=max(0, body["top_k"]), stop=tuple(body["stop"]), seed=body["seed"],
            logprobs=body["logprobs"], echo=body.get("echo", False), frequency_penalty=body["frequency_penalty"],
            presence_penalty=body["presence_penalty"],
            bias=tuple((int(token), added) for token, added in body["logit_bias"].items()),
            grammar=Grammar(schema=body["structured_outputs"]["json"]) if "structured_outputs" in body else None,
        )  # fmt: skip
        chunks = engine.generate(ask)
        try:
            first = await anext(chunks)
        except BusyError as fault:
            return error(503, str(fault))
        if ask.echo and ask.max_tokens:  # the prompt and the first token are one chunk
            after = await anext(chunks)
            first = dataclasses.replace(after, text=first.text + after.text, logprobs=first.logprobs + after.logprobs)
        if not body["stream"]:  # asked for the prompt alone
            await chunks.aclose()
            choice = {"index": 0, "text": first.text, "logprobs": likely(first), "finish_reason": "length"}
            return JSONResponse({"choices": [choice], "usage": {"completion_tokens": 1}})
        return StreamingResponse(events(first, chunks, body), media_type="text/event-stream")

    return app


def likely(chunk: Any) -> dict[str, list[Any]]:
    """VLLM's log-probabilities of a chunk."""
    return {
        "tokens": [token for token, _, _ in chunk.logprobs],
        "token_logprobs": [value for _, value, _ in chunk.logprobs],
        "top_logprobs": [
            None if value is None else {**others, token: value} for token, value, others in chunk.logprobs
        ],
        "text_offset": [],
    }


async def events(first: Any, chunks: Any, body: dict[str, Any]) -> AsyncIterator[str]:
    """VLLM's stream of a completion, with the running usage."""

    async def every() -> AsyncIterator[Any]:
        yield first
        async for chunk in chunks:
            yield chunk

    count = reused = 0
    async with contextlib.aclosing(chunks):
        async for chunk in every():
            count, reused = count + chunk.tokens, reused + chunk.reused
            told = None
            if body["logprobs"] is not None:
                told = likely(chunk)
                if chunk.finish == "stop":  # vLLM tells the end token too
                    told["tokens"].append("<end>")
                    told["token_logprobs"].append(-0.1)
                    told["top_logprobs"].append({"<end>": -0.1})
            choice = {"index": 0, "text": chunk.text, "logprobs": told, "finish_reason": chunk.finish}
            yield f"data: {json.dumps({'choices': [choice], 'usage': {'completion_tokens': count}})}\n\n"
    usage = {"completion_tokens": count, "prompt_tokens_details": {"cached_tokens": reused}}
    yield f"data: {json.dumps({'choices': [], 'usage': usage})}\n\n"
    yield "data: [DONE]\n\n"


@dataclass(frozen=True)
class Words:
    """What the base is asked, and what it says greedily: as a whole, its beginning, and what stands before ``stop``."""

    prompt: str
    answer: str
    three: str
    stop: str
    before: str


TINY = Words(PROMPT, "open the gate", "ope", "gate", "open the ")
SMOL = Words(
    "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n",
    "The capital of France is Paris.",
    "The capital of",
    "France",
    "The capital of ",
)


@dataclass
class Made:
    """A backend, and the engine whose answers it gives.

    Attributes:
        active: How many answers are being generated.
        real: Whether it is a real vLLM, which has other random numbers than the engine and refuses no request.
    """

    backend: Any
    engine: Any
    tokenizer: Any
    active: Callable[[], int]
    words: Words = TINY
    resolved: list[str] = field(default_factory=list)
    real: bool = False

    def ask(self, model: str = "base", **changes: Any) -> GenerationRequest:
        """A greedy ask for twenty tokens."""
        return ask(model, **{"prompt": self.words.prompt} | changes)


@pytest.fixture(params=["local", "vllm", *(["real"] if os.environ.get("LORALOOP_VLLM") else [])])
def make(request, backend, tmp_path) -> Any:
    """A function that makes a started backend of each kind."""
    real = request.param == "real"
    base, versions = (request.getfixturevalue(f"{'smol_' if real else ''}{name}") for name in ("base", "versions"))
    with contextlib.ExitStack() as stack:

        def started(**bounds: Any) -> Made:
            resolved: list[str] = []

            def resolve(name: str) -> Version:
                resolved.append(name)
                return version(versions, name)

            if request.param == "local":
                engine = backend(resolve=resolve, **bounds)
                return Made(engine, engine, base.tokenizer, partial(busy, engine), resolved=resolved)
            if real:
                engine = request.getfixturevalue("smol_engine")
                url = request.getfixturevalue("real_vllm")
                active = partial(running, url)
            else:
                engine = backend(**bounds)
                app = vllm(engine, base.tokenizer, {str(each.path): each for each in versions.values()})
                url = stack.enter_context(listening(app, tmp_path))
                active = partial(busy, engine)
            remote = VllmBackend(url=url).attach(base.base, base.tokenizer, resolve)
            remote.check()
            remote.start()
            stack.callback(remote.close)
            stack.callback(lambda: [remote.unload(name) for name in remote.loaded() if name != "base"])
            return Made(remote, engine, base.tokenizer, active, SMOL if real else TINY, resolved, real)

        yield started


def version(versions: dict[str, Version], name: str) -> Version:
    """A version by name; one that is named after a template of loraloop was trained in it.

    Raises:
        RegistryError: There is none.
    """
    template = name.removesuffix("@1")
    if template in BUILT_IN:
        same = versions["ocr@2"]
        manifest = dataclasses.replace(same.manifest, template=template)
        return dataclasses.replace(same, name=template, number=1, manifest=manifest)
    if name not in versions:
        raise RegistryError(f"there is no {name}")
    return versions[name]


def busy(engine: Any) -> int:
    """Answers that an engine is generating."""
    return int(engine.stats()["active"])


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
            made.ask(),
            made.ask("ocr@2"),
            made.ask("action@1"),
            made.ask(max_tokens=3),
            made.ask(stop=(made.words.stop, "x")),
        ]
        sampled = [
            made.ask("action@1", temperature=1.0, seed=3),
            made.ask(temperature=0.7, top_p=0.9, top_k=5, seed=4),
        ]
        got, drawn = answer(made.backend, asks), answer(made.backend, sampled)
        same = answer(made.engine, asks)
        assert got == same
        assert drawn == answer(made.backend if made.real else made.engine, sampled)
        assert got[0].text == made.words.answer
        assert got[1].text != got[0].text
        assert (got[3].text, got[3].tokens, got[3].finish) == (made.words.three, 3, "length")
        assert (got[4].text, got[4].finish) == (made.words.before, "stop")

    def test_logprobs(self, make, answer):
        """Each token has its log-probability and as many alternatives as were asked for, but for the end token."""
        made = make()
        (told,) = answer(made.backend, [made.ask(logprobs=2, max_tokens=4)])
        (same,) = answer(made.engine, [made.ask(logprobs=2, max_tokens=4)])
        assert "".join(token for token, _, _ in told.logprobs) == told.text == made.words.answer[: len(told.text)]
        assert [len(others) for _, _, others in told.logprobs] == [2] * 4
        for mine, theirs in zip(told.logprobs, same.logprobs, strict=True):
            assert mine[1] == pytest.approx(theirs[1], abs=1e-3 if made.real else 1e-4)
            assert mine[2] == pytest.approx(theirs[2], abs=1e-3 if made.real else 1e-4)
        assert answer(made.backend, [made.ask()])[0].logprobs == ()
        (whole,) = answer(made.backend, [made.ask(logprobs=0)])
        assert "".join(token for token, _, _ in whole.logprobs) == whole.text == made.words.answer

    @pytest.mark.parametrize("more", [{}, {"logprobs": 1}, {"max_tokens": 0}, {"logprobs": 1, "max_tokens": 0}])
    def test_an_echo(self, make, more):
        """The prompt comes once, as the first chunk and no part of the answer, with its tokens' log-probabilities."""
        made = make()
        request = made.ask(**{"echo": True, "max_tokens": 3} | more)

        async def chunks(backend: Any) -> list[Any]:
            return [chunk async for chunk in backend.generate(request)]

        (first, *told), (same, *_) = (asyncio.run(chunks(backend)) for backend in (made.backend, made.engine))
        assert (first.echo, first.text, first.tokens, first.finish) == (True, request.prompt, 0, same.finish)
        assert [value for _, value, _ in first.logprobs] == pytest.approx(
            [value for _, value, _ in same.logprobs], abs=1e-3
        )
        assert not any(chunk.echo for chunk in told)
        assert "".join(chunk.text for chunk in told) == (made.words.three if request.max_tokens else "")

    def test_a_held_answer(self, make, answer):
        """An answer obeys the schema that it is held to."""
        schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 2}
        made = make()
        (held,) = answer(made.backend, [made.ask(grammar=Grammar(schema=schema), max_tokens=200)])
        assert {type(each) for each in json.loads(held.text)} == {bool}

    def test_what_was_read_is_known_until_it_is_forgotten(self, make):
        """A prompt that was asked before is told to be read in part, and no more once the past was forgotten."""
        made = make(max_batch=1)
        request = made.ask(prompt=50 * made.words.prompt, max_tokens=2)

        async def reused() -> int:
            return sum([chunk.reused async for chunk in made.backend.generate(request)])

        assert asyncio.run(reused()) == 0
        assert asyncio.run(reused()) > 0
        made.backend.forget()
        assert asyncio.run(reused()) == 0

    def test_adapters_come_and_go(self, make):
        """An adapter that was loaded is listed, one that was unloaded is not, and one that is not there cannot go."""
        backend = make().backend
        assert list(backend.loaded()) == ["base"]
        backend.prepare("ocr@1")
        assert set(backend.loaded()) == {"base", "ocr@1"}
        backend.unload("ocr@1")
        assert list(backend.loaded()) == ["base"]
        with pytest.raises(ModelError, match="ocr@1"):
            backend.unload("ocr@1")

    def test_a_registered_adapter_comes_by_use(self, make, answer):
        """A version that is asked for and not there is fetched once; the counters tell."""
        made = make()
        answer(made.backend, [made.ask("ocr@2"), made.ask("ocr@2")], together=False)
        assert "ocr@2" in made.backend.loaded()
        assert made.resolved == ["ocr@2"]
        stats = made.backend.stats()
        assert (stats["misses"], stats["hits"], stats["loads"]) == (1, 1, 1)

    def test_what_is_not_there(self, make, answer):
        """A version that nobody knows is the registry's error, and the next request is answered."""
        made = make()
        with pytest.raises(LoraloopError, match="nobody@1"):
            answer(made.backend, [made.ask("nobody@1")])
        assert answer(made.backend, [made.ask()])[0].finish == "stop"

    def test_prompts(self, make):
        """Conversations are rendered as the model was trained to be asked, and counted as it sees them."""
        made = make()
        backend, engine = made.backend, made.engine
        assert backend.render(MESSAGES, "base") == engine.render(MESSAGES, "base")
        assert backend.render(MESSAGES, "ocr@1") == PROMPT
        assert [backend.tokens(text) for text in ("", PROMPT)] == [engine.tokens(text) for text in ("", PROMPT)]
        if not made.real:
            assert backend.render(MESSAGES, "base") == "copy\nopen the gate\n> "
            assert backend.tokens(PROMPT) == len(PROMPT.encode()) + 1
        assert backend.longest_token() == engine.longest_token()
        ids = made.tokenizer(PROMPT)["input_ids"]
        assert backend.text(ids) == engine.text(ids)
        with pytest.raises(ModelError, match="1000000 is no token: the vocabulary has 0 to"):
            backend.text([1_000_000])
        assert backend.limit() == 2048

    @pytest.mark.parametrize("template", BUILT_IN)
    def test_every_template(self, make, template, answer):
        """A version is asked in the template of its training, tools included, and answers as the engine does."""
        made = make()
        name = f"{template}@1"
        made.backend.prepare(name)
        text = made.backend.render(MESSAGES, name, TOOLS)
        assert text == prompts.ask(template, made.tokenizer, read_all(MESSAGES), TOOLS)
        assert "open_gate" in text
        asks = [ask(name, prompt=text)]
        assert answer(made.backend, asks) == answer(made.engine, asks)

    def test_leaving_frees_the_place(self, make):
        """Whoever stops listening ends the answer."""
        made = make()

        async def leave() -> None:
            chunks = made.backend.generate(made.ask("ocr@2", max_tokens=1500))
            await anext(chunks)
            await chunks.aclose()
            while made.active():
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
                return answer(made.backend, [made.ask("ocr@2", max_tokens=1500, deadline=seconds)])[0]

        late = until(cut, "an answer that has begun before its deadline")
        assert late.finish == "length"
        assert late.tokens < 1500

    def test_a_full_queue(self, make):
        """More than fit are refused at once, and the others are answered; a real vLLM lets them wait."""
        made = make(max_batch=1, max_queue=1)

        async def all_at_once() -> list[Any]:
            async def one() -> str:
                return "".join([chunk.text async for chunk in made.backend.generate(made.ask(max_tokens=400))])

            return await asyncio.gather(*(one() for _ in range(6)), return_exceptions=True)

        answers = asyncio.run(all_at_once())
        assert {type(each) for each in answers} == ({str} if made.real else {str, BusyError})
        assert {each for each in answers if isinstance(each, str)} == {made.words.answer}


def test_a_server_that_is_not_there(tmp_path):
    """A vLLM server that does not answer is told before anything is served, with the line that starts it."""
    settings = Server(port=0, keys=tmp_path / "none")
    with settings.listen() as taken:
        url = run.address("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(ConfigError, match=r"serve\.url=.*vllm serve"):
        VllmBackend(url=url).check()


def test_what_is_wrong_with_a_request_and_what_with_the_server(backend, base, tmp_path, answer):
    """What the server refuses as wrong is an error of the request; a server that is gone is one of the server."""
    wrong = ask(bias=((10**6, 1.0),))
    held = dataclasses.replace(wrong, grammar=Grammar(schema={"type": "array"}))
    with listening(vllm(backend(), base.tokenizer, {}), tmp_path) as url:
        remote = VllmBackend(url=url).attach(base.base, base.tokenizer)
        remote.start()
        with pytest.raises(ApiError, match="out-of-vocab") as refused:
            answer(remote, [wrong])
        assert (refused.value.status, refused.value.code) == (400, "invalid_value")
        with pytest.raises(GrammarError, match="out-of-vocab") as unheld:
            answer(remote, [held])
        assert unheld.value.param == "response_format"
    with pytest.raises(ModelError, match="does not answer"):
        answer(remote, [ask()])
    assert remote.text([1]) == base.tokenizer.decode([1])
    remote.close()
    late = 'data: {"error": {"message": "no such form", "code": 400}}'
    with pytest.raises(GrammarError, match="no such form"):
        _chunk(late, held, 0)
    with pytest.raises(ModelError, match="failed: no such form"):
        _chunk(late, wrong, 5)


def test_another_base(backend, base, tmp_path):
    """A vLLM server whose base has another tokenizer than ``model`` is told before anything is served."""
    other = copy.deepcopy(base.tokenizer)
    other.add_tokens(["Heads"])
    with listening(vllm(backend(), base.tokenizer, {}), tmp_path) as url:
        remote = VllmBackend(url=url).attach(base.base, other)
        with pytest.raises(
            ConfigError, match=r"org/base-7b, whose tokens .* model\.name=bundled:tiny: choose with `model`"
        ):
            remote.check()
        remote.close()


def test_an_adapter_of_another_tokenizer(backend, base, versions, tmp_path):
    """The vLLM server compares shapes alone, so an adapter whose tokenizer was another one is not sent there."""
    ocr = versions["ocr@1"]
    foreign = dataclasses.replace(ocr.manifest.base, tokenizer_sha256="0" * 64)
    version = dataclasses.replace(ocr, manifest=dataclasses.replace(ocr.manifest, base=foreign))
    with listening(vllm(backend(), base.tokenizer, {}), tmp_path) as url:
        remote = VllmBackend(url=url).attach(base.base, base.tokenizer)
        with pytest.raises(ModelError, match=r"ocr@1 was trained on bundled:tiny with another tokenizer"):
            remote.load("ocr@1", version)
        assert remote.stats()["refused"] == 1
        remote.close()


def test_the_key_comes_from_the_environment(backend, base, tmp_path, monkeypatch):
    """The vLLM server's key is read from a variable, so that no configuration that is logged holds it."""
    monkeypatch.setenv("MY_KEY", "secret")
    app = vllm(backend(), base.tokenizer, {})
    with listening(app, tmp_path) as url:
        remote = VllmBackend(url=url, key_variable="MY_KEY").attach(base.base, base.tokenizer)
        remote.start()
        remote.close()
    assert app.state.seen["keys"] == {"Bearer secret"}


def test_a_restarted_server(backend, base, versions, tmp_path, answer):
    """An adapter that the vLLM server has forgotten costs one failed answer; then it is loaded again."""
    engine = backend()
    app = vllm(engine, base.tokenizer, {str(each.path): each for each in versions.values()})
    with listening(app, tmp_path) as url:
        remote = VllmBackend(url=url).attach(base.base, base.tokenizer, versions.__getitem__)
        remote.start()
        before = answer(remote, [ask("ocr@1")])
        engine.unload("ocr@1")
        with pytest.raises(ModelError, match="ocr@1 with 404"):
            answer(remote, [ask("ocr@1")])
        assert answer(remote, [ask("ocr@1")]) == before
        remote.close()
