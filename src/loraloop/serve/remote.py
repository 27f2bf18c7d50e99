"""The backend that asks a vLLM server, by its documented HTTP API.

It uses ``/v1/completions`` with ``continuous_usage_stats``, ``/v1/load_lora_adapter``, ``/v1/unload_lora_adapter``,
``/v1/models`` and ``/tokenize``, as vLLM's documentation has them under "OpenAI-Compatible Server" and "LoRA Adapters".
Prompts are rendered and tokenised here, by the rule of the training, and go to the server as token ids.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from loraloop.core import prompts
from loraloop.core.adapter_files import plain_copy
from loraloop.core.messages import read_all
from loraloop.core.tokens import encode_prompt
from loraloop.core.workers import Workers
from loraloop.errors import ArtefactError, BusyError, ConfigError, GrammarError, ModelError
from loraloop.records import Base, Chunk, GenerationRequest, Version
from loraloop.serve.engine.prompt import checked, decoded, longest_token, of_base
from loraloop.serve.errors import ApiError
from loraloop.serve.grammar import for_vllm, param_of
from loraloop.serve.names import BASE

if TYPE_CHECKING:
    import httpx2
    from transformers import PreTrainedTokenizerBase

    from loraloop.serve.engine.engine import Resolve

STATE_SECONDS = 5.0
"""Longest wait for the list of what the server has loaded."""
BUSY = frozenset({429, 503})
SCORE = {"echo": True, "max_tokens": 0, "stream": False, "stream_options": None}
"""What asks for the log-probabilities of the prompt alone."""
SAMPLE = "Heads: 12, tails: 20.\n<|im_end|></s> \u00e4\u4e2d {}"
"""A text that other tokenizers split otherwise."""
HOW = {
    "lora_adapter": "start it with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True",
    "/reset_prefix_cache": "restart it, or start it with VLLM_SERVER_DEV_MODE=1 on a network of its own",
}
"""What a server needs that does not know a path."""


class Remote:
    """A :class:`loraloop.protocols.Backend` on a vLLM server.

    Which adapters are in its memory is decided by the server (``--max-loras``, ``--max-cpu-loras``).

    Args:
        url: The server.
        headers: With its key.
        seconds: Time for a call that is not an answer.
        base: What the server serves as its base.
        tokenizer: Of the base.
        resolve: Fetches a version that is asked for and not loaded there.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        seconds: float,
        base: Base,
        tokenizer: PreTrainedTokenizerBase,
        resolve: Resolve | None,
    ) -> None:
        import httpx2

        self._trained_on, self._tokenizer, self._resolve = base, tokenizer, resolve
        self._longest = longest_token(tokenizer)
        self._known = max(tokenizer.get_vocab().values()) + 1
        self._encoding = threading.Lock()
        self._encoders = Workers("tokens", 1)
        self._settings: dict[str, Any] = {"base_url": url, "headers": dict(headers), "timeout": seconds}
        self._seconds = seconds
        self._http = httpx2.Client(**self._settings)
        self._answers: tuple[asyncio.AbstractEventLoop, httpx2.AsyncClient] | None = None
        self._loading = threading.Lock()
        self._loaders = Workers("loading", 1)
        self._loaded_there: set[str] = set()
        self._templates: dict[str, str] = {}
        self.base = base.name
        """The base's name, by which the registry finds its adapters."""
        self._base, self._limit = "", 0
        self._counts = dict.fromkeys(("hits", "misses", "loads", "refused"), 0)

    def check(self) -> None:
        """Whether the server has the base.

        Raises:
            ConfigError: It has none, or one with another tokenizer, or does not answer.
        """
        try:
            self._read_base()
            theirs = self._post("/tokenize", {"model": self._base, "prompt": SAMPLE})["tokens"]
        except ModelError as error:
            raise ConfigError(str(error)) from error
        if theirs != self._encode(SAMPLE):
            raise ConfigError(
                f"the vLLM server serves {self._base}, whose tokens are not those of model.name={self.base}: choose "
                "with `model` the base that it serves, as for the training"
            )

    def start(self) -> None:
        """Read the base's name and length."""
        self._read_base()

    def close(self) -> None:
        """End every answer and close the connections."""
        self._http.close()
        if self._answers is not None and self._answers[0].is_running():
            loop, client = self._answers
            asyncio.run_coroutine_threadsafe(client.aclose(), loop).result()

    def loaded(self) -> Sequence[str]:
        """``base`` and the adapters that the server knows."""
        return [BASE, *(card["id"] for card in self._cards() if card.get("parent") is not None)]

    def stats(self) -> Mapping[str, int]:
        """Counters since the start."""
        return {**self._counts, "resident": len(self._loaded_there)}

    def load(self, model: str, version: Version) -> None:
        """Make the server load an adapter; it checks names, shapes and rank, the registry has checked the rest.

        Raises:
            ModelError: The server refuses it.
        """
        with self._loading:
            self._load(model, version)

    def prepare(self, model: str) -> None:
        """Make the server load a registered version, unless it has it.

        Raises:
            ModelError: The server refuses it.
            RegistryError: There is no such version, or it is damaged.
        """
        if model != BASE:
            self._load_registered(model)

    def unload(self, model: str) -> None:
        """Make the server forget an adapter.

        Raises:
            ModelError: It does not know it.
        """
        self._loaded_there.discard(model)
        self._post("/v1/unload_lora_adapter", {"lora_name": model})

    def forget(self) -> None:
        """Make the server drop its prefix cache; it offers that in its development mode alone.

        Raises:
            ModelError: It does not offer it.
        """
        self._post("/reset_prefix_cache", {})

    def tokens(self, prompt: str) -> int:
        """Tokens of a prompt, the start token that the tokenizer adds included."""
        return len(self._encode(prompt))

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens that a client chose.

        Raises:
            ModelError: One of them is none of the vocabulary.
        """
        with self._encoding:
            return decoded(self._tokenizer, ids, self._known)

    def longest_token(self) -> int | None:
        """Most characters of a text that one token stands for, where the tokenizer says."""
        return self._longest

    def knows(self, model: str) -> bool:
        """Whether the template of a model is known."""
        return model == BASE or model in self._templates

    def limit(self) -> int:
        """The server's ``--max-model-len``."""
        return self._limit

    def render(self, messages: Sequence[Mapping[str, Any]], model: str, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt in the template that ``model`` was trained with; the base has its tokenizer's chat template."""
        said = read_all(messages)
        template = None if model == BASE else checked(self._template(model), model)
        with self._encoding:
            if template is None:
                return of_base(self._tokenizer, said, tools)
            prompts.require_tools(template, self._tokenizer, said, tools)
            return prompts.ask(template, self._tokenizer, said, tools)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """Generate an answer, chunk by chunk; closing the iterator closes the connection, which ends it on the server.

        Raises:
            ApiError: The server says that the request is wrong.
            BusyError: It is full.
            GrammarError: It cannot hold the answer to its grammar.
            ModelError: It cannot be reached, or has no such model and it cannot be loaded.
        """
        import httpx2

        ends = asyncio.get_running_loop().time() + request.deadline
        given = request.ids
        prompt = list(given) if given is not None else await self._encoders.run(self._encode, request.prompt)
        await self._ensure(request.model)
        response = None
        try:
            async with asyncio.timeout_at(ends):
                echo = await self._echo(request, prompt) if request.echo else None
                if request.max_tokens:
                    response = await self._open(request, self._body(request, prompt))
            if echo is not None:
                yield echo
            if response is None:
                return
            lines, counted, chunk = response.aiter_lines(), 0, None
            while chunk is None or chunk.finish is None:
                async with asyncio.timeout_at(ends):
                    chunk = await _next(lines, request, counted)
                    if chunk.finish is not None:
                        chunk = dataclasses.replace(chunk, reused=await _reused(lines))
                counted += chunk.tokens
                yield chunk
        except TimeoutError:
            yield Chunk(text="", finish="length")
        except httpx2.HTTPError as error:
            raise ModelError(f"the vLLM server does not answer: {error or type(error).__name__}") from error
        finally:
            if response is not None:
                await response.aclose()

    async def _echo(self, request: GenerationRequest, prompt: list[int]) -> Chunk:
        """The prompt as a chunk; the server is asked for it only where log-probabilities are."""
        finish = None if request.max_tokens else "length"
        if request.logprobs is None:
            return Chunk(text=request.prompt, echo=True, finish=finish)
        response = await self._open(request, self._body(request, prompt) | SCORE)
        try:
            (choice,) = orjson.loads(await response.aread())["choices"]
        finally:
            await response.aclose()
        told = _logprobs(choice["logprobs"], request.logprobs)
        return Chunk(text=request.prompt, echo=True, logprobs=told, finish=finish)

    async def _open(self, request: GenerationRequest, body: Mapping[str, Any]) -> httpx2.Response:
        """The beginning of the server's answer."""
        client = self._client()
        http_request = client.build_request("POST", "/v1/completions", json=body)
        http_request.extensions["timeout"] |= {"read": None}  # the deadline ends it
        response = await client.send(http_request, stream=True)
        if response.is_error:
            try:
                text = (await response.aread()).decode(errors="replace")
                if response.status_code == 400:
                    raise _refused(request, _message(text))
                self._fail(response.status_code, text, request.model)
            finally:
                await response.aclose()
        return response

    def _client(self) -> httpx2.AsyncClient:
        """Connections for answers; they belong to an event loop."""
        import httpx2

        loop = asyncio.get_running_loop()
        if self._answers is None or self._answers[0] is not loop:
            # The server's own queue decides how many answers there are at once.
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=16)
            self._answers = (loop, httpx2.AsyncClient(**self._settings, limits=limits))
        return self._answers[1]

    async def _ensure(self, model: str) -> None:
        known = model == BASE or model in self._loaded_there
        if model != BASE:
            self._counts["hits" if known else "misses"] += 1
        if not known:
            await self._loaders.run(self._load_registered, model)

    def _load_registered(self, model: str) -> None:
        with self._loading:
            if model not in self._loaded_there:
                self._load(model, self._version(model))

    def _load(self, model: str, version: Version) -> None:
        try:
            template = checked(version.manifest.template, model)
            self._require_base(model, version.manifest.base)
            if model not in self.loaded():
                self._post("/v1/load_lora_adapter", {"lora_name": model, "lora_path": str(plain_copy(version.path))})
        except (ModelError, ArtefactError):
            self._counts["refused"] += 1
            raise
        self._counts["loads"] += 1
        self._loaded_there.add(model)
        self._templates[model] = template

    def _require_base(self, model: str, base: Base) -> None:
        """The server compares shapes alone, which other bases share."""
        if base.tokenizer_sha256 != self._trained_on.tokenizer_sha256:
            raise ModelError(
                f"{model} was trained on {base.name} with another tokenizer than that of {self.base}: train it again "
                "on this base, or serve that one"
            )

    def _version(self, model: str) -> Version:
        if self._resolve is None:
            raise ModelError(f"{model} is not loaded; there are {', '.join(self.loaded())}")
        return self._resolve(model)

    def _template(self, model: str) -> str:
        if model not in self._templates:
            self._templates[model] = self._version(model).manifest.template
        return self._templates[model]

    def _body(self, request: GenerationRequest, prompt: list[int]) -> dict[str, Any]:
        return {
            "model": self._base if request.model == BASE else request.model,
            "prompt": prompt,
            "frequency_penalty": request.frequency_penalty,
            "presence_penalty": request.presence_penalty,
            "logit_bias": {str(token): added for token, added in request.bias},
            "max_tokens": request.max_tokens,
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k or -1,
            "repetition_penalty": 1.0,  # else the server takes it from the base's generation settings, as it does min_p
            "min_p": 0.0,
            "stop": list(request.stop),
            "seed": request.seed,
            "logprobs": request.logprobs,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        } | ({"structured_outputs": for_vllm(request.grammar)} if request.grammar else {})

    def _read_base(self) -> None:
        base = next(card for card in self._cards() if card.get("parent") is None)
        self._base, self._limit = base["id"], int(base["max_model_len"])

    def _encode(self, text: str) -> list[int]:
        with self._encoding:  # a fast tokenizer cannot be used by two threads at once
            return encode_prompt(self._tokenizer, text)

    def _cards(self) -> list[dict[str, Any]]:
        cards: list[dict[str, Any]] = self._call("GET", "/v1/models", None, STATE_SECONDS)["data"]
        if not any(card.get("parent") is None for card in cards):
            raise ModelError("the vLLM server serves no base")
        return cards

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._call("POST", path, body)

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None, most: float = math.inf) -> Any:
        import httpx2

        try:
            response = self._http.request(method, path, json=body, timeout=min(self._seconds, most))
        except httpx2.HTTPError as error:
            raise ModelError(f"the vLLM server does not answer: {error}") from error
        if response.is_error:
            self._fail(response.status_code, response.text, str((body or {}).get("lora_name", "")), path)
        return response.json() if "json" in response.headers.get("content-type", "") else response.text

    def _fail(self, status: int, text: str, model: str, path: str = "") -> None:
        if status in BUSY:
            raise BusyError("the vLLM server is full; ask again later")
        if status == 404:
            self._loaded_there.discard(model)  # it was restarted: the next request loads the adapter again
        hint = next((f"; {how}" for end, how in HOW.items() if status == 404 and path.endswith(end)), "")
        raise ModelError(f"the vLLM server refused {model or path} with {status}: {_message(text)}{hint}")


async def _next(lines: AsyncIterator[str], request: GenerationRequest, counted: int) -> Chunk:
    async for line in lines:
        if (chunk := _chunk(line, request, counted)) is not None:
            return chunk
    raise ModelError("the vLLM server ended an answer early")


def _chunk(line: str, request: GenerationRequest, counted: int) -> Chunk | None:
    """The chunk in a line of the stream; its tokens are the growth of the running count."""
    data = line.removeprefix("data:").strip()
    if not line.startswith("data:") or data == "[DONE]":
        return None
    event = orjson.loads(data)
    if "error" in event:
        told = event["error"].get("message")
        if event["error"].get("code") == 400 and not counted:  # some checks come when the stream has begun
            raise _refused(request, told)
        raise ModelError(f"the vLLM server failed: {told}")
    if not event["choices"]:
        return None
    choice = event["choices"][0]
    finish = choice.get("finish_reason")
    logprobs = _logprobs(choice.get("logprobs"), request.logprobs)
    if finish == "stop" and not isinstance(choice.get("stop_reason"), str):  # no stop string: the end token, no text
        logprobs = logprobs[:-1]
    return Chunk(
        text=choice["text"],
        tokens=event["usage"]["completion_tokens"] - counted,
        logprobs=logprobs,
        finish="stop" if finish == "stop" else "length" if finish else None,
    )


async def _reused(lines: AsyncIterator[str]) -> int:
    """Tokens of the prompt that the server had read before, as the usage after the last choice tells them.

    It tells them with --enable-prompt-tokens-details alone.
    """
    async for line in lines:
        data = line.removeprefix("data:").strip()
        if data and data != "[DONE]":
            usage = orjson.loads(data).get("usage") or {}
            return int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    return 0


def _logprobs(
    logprobs: Mapping[str, Any] | None, wanted: int | None
) -> tuple[tuple[str, float | None, Mapping[str, float]], ...]:
    """Each token with the ``wanted`` likeliest; vLLM adds the token itself where it is none of them."""
    if logprobs is None or wanted is None:
        return ()
    tops = [sorted((top or {}).items(), key=lambda item: -item[1])[:wanted] for top in logprobs["top_logprobs"]]
    return tuple(
        (token, value, dict(top))
        for token, value, top in zip(logprobs["tokens"], logprobs["token_logprobs"], tops, strict=True)
    )


def _refused(request: GenerationRequest, message: str) -> ApiError | GrammarError:
    """The error of a request that the server takes for wrong, whichever version it is for."""
    said = f"the vLLM server refuses the request: {message}"
    if request.grammar is not None:
        return GrammarError(said, param_of(request.grammar))
    return ApiError(400, said, code="invalid_value")


def _message(text: str) -> str:
    try:
        body = orjson.loads(text)
        return str(body.get("error", body).get("message", text))[:500]
    except (ValueError, AttributeError):
        return text[:500]
