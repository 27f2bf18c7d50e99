"""The backend that generates in this process."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from loraloop.core import prompts
from loraloop.core.messages import read_all
from loraloop.core.tokens import encode_prompt
from loraloop.core.workers import Workers
from loraloop.errors import ArtefactError, BusyError, ConfigError, ModelError
from loraloop.records import Base, Chunk, GenerationRequest, LoadedModel, Version
from loraloop.serve.engine import prompt
from loraloop.serve.engine.adapter_cache import AdapterCache
from loraloop.serve.engine.adapter_validation import AdapterValidator, require_agreement
from loraloop.serve.engine.constraint import Constraints
from loraloop.serve.engine.generation import Generation
from loraloop.serve.engine.prefix_cache import PrefixCache
from loraloop.serve.engine.sampling import scores
from loraloop.serve.engine.scheduler import Scheduler
from loraloop.serve.engine.token_text import token_text

if TYPE_CHECKING:
    from loraloop.serve.engine.lora import LoraAdapter

BASE = "base"
PROBE = "Which of the twelve vaults opens?\n"
"""The probe where a manifest records none."""
PATIENCE = 0.02
"""Seconds between two checks whether an adapter can be evicted."""
Resolve = Callable[[str], Version]
"""Finds a registered version by the name that it answers to, such as ``ocr@7``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """The bounds of an engine; attributes are those of :class:`loraloop.serve.local.LocalBackend`."""

    max_batch: int = 8
    max_queue: int = 64
    max_length: int | None = 2048
    max_adapters: int = 8
    max_rank: int = 64
    deadline_seconds: float = 120.0
    prefix_cache_mb: int = 256


class Engine:
    """A base in memory and the adapters on it; a :class:`loraloop.protocols.Backend`.

    Args:
        limits: Its bounds.
        loaded: The base; nobody else may run it while the engine does.
        resolve: Fetches a version that is asked for and not in memory; without it only loaded ones answer.
    """

    def __init__(self, limits: EngineLimits, loaded: LoadedModel, resolve: Resolve | None) -> None:
        self._limits, self._loaded = limits, loaded
        self._resolve = resolve
        self._tokenizer = loaded.tokenizer
        self._validator = AdapterValidator(loaded, limits.max_rank)
        self._cache = AdapterCache(limits.max_adapters)
        ends = _ends(loaded)
        self._prefixes = PrefixCache(limits.prefix_cache_mb)
        self._scheduler = Scheduler(loaded.model, limits.max_batch, ends, self._prefixes)
        self._loading = threading.Lock()
        self._encoding = threading.Lock()
        self._counting = threading.Lock()
        self._encoders, self._loaders = Workers("tokens", 1), Workers("loading", 1)
        self._scorers, self._grammars = Workers("scores", 1), Workers("grammar", 1)
        self._constraints = Constraints(loaded.tokenizer, ends, self._encoding)
        self._longest = prompt.longest_token(loaded.tokenizer)
        self._templates: dict[str, str] = {}
        self._admitted = self._hits = self._misses = self._loads = self._refused = 0

    @property
    def base(self) -> Base:
        """The base that is served."""
        return self._loaded.base

    def check(self) -> None:
        """Whether the model can be served.

        Raises:
            ConfigError: ``max_length`` is above the model's positions, or it keeps another state than keys and values.
        """
        config = self._loaded.model.config
        problems = []
        positions = getattr(config, "max_position_embeddings", None)
        if self._limits.max_length and positions and self._limits.max_length > positions:
            problems.append(
                f"serve.max_length={self._limits.max_length} is above the {positions} positions of "
                f"{self._loaded.base.name}: choose at most {positions}, or null"
            )
        others = set(getattr(config, "layer_types", None) or ()) - {"full_attention", "sliding_attention"}
        if others:
            problems.append(
                f"{self._loaded.base.name} has layers of the kind {', '.join(sorted(others))}, whose state cannot be "
                "batched here: serve it with vLLM (serve=vllm)"
            )
        if problems:
            raise ConfigError(*problems)

    def start(self) -> None:
        """Start the scheduler, whose thread alone runs the model."""
        self._scheduler.start()

    def close(self) -> None:
        """End every answer with a BusyError, and leave the model as it was."""
        self._scheduler.close()

    def loaded(self) -> Sequence[str]:
        """``base`` and the adapters in memory."""
        return [BASE, *self._cache.names()]

    def stats(self) -> Mapping[str, int]:
        """Counters since the start, and what is going on now (``queue``, ``active``, ``resident``)."""
        queue = self._scheduler.waiting()
        return {
            "queue": queue,
            "active": max(0, self._admitted - queue),
            "resident": len(self._cache.names()),
            "hits": self._hits,
            "misses": self._misses,
            "loads": self._loads,
            "refused": self._refused,
            "evictions": self._cache.evictions,
            "prefix_tokens": self._prefixes.reused,
            "prefix_evictions": self._prefixes.evictions,
            "prefix_bytes": self._prefixes.bytes,
        }

    def load(self, model: str, version: Version) -> None:
        """Verify an adapter beside live traffic, then route ``model`` to it.

        Files are read and verified on the caller's thread; the traffic waits for one pass over a probe.

        Raises:
            ModelError: It is not what its manifest says, does not fit the base, or does not answer as when trained.
            BusyError: Every place for an adapter is taken by one that is answering.
        """
        with self._loading:
            self._validate_and_add(model, version)

    def prepare(self, model: str) -> None:
        """Load a registered version, unless it is in memory; errors are those of :meth:`load`.

        Raises:
            RegistryError: There is no such version, or it is damaged.
        """
        with self._loading:
            if model != BASE and model not in self._cache.names():
                self._validate_and_add(model, self._version(model))

    def unload(self, model: str) -> None:
        """Take an adapter off; what it has begun to answer it answers to the end.

        Raises:
            ModelError: No such adapter is loaded.
        """
        if not self._cache.remove(model):
            raise ModelError(f"{model} is not loaded; there are {', '.join(self.loaded())}")

    def forget(self) -> None:
        """Drop the keys and values of every answer that has ended.

        Raises:
            BusyError: The server is shutting down.
        """
        self._scheduler.call(self._prefixes.clear)

    def tokens(self, prompt: str) -> int:
        """Tokens of a rendered prompt, the start token that the tokenizer adds included."""
        return len(self._encode(prompt))

    def text(self, ids: Sequence[int]) -> str:
        """The text of tokens that a client chose.

        Raises:
            ModelError: One of them is none of the vocabulary.
        """
        known = int(self._loaded.model.config.get_text_config().vocab_size)
        with self._encoding:
            return prompt.decoded(self._tokenizer, ids, known)

    def longest_token(self) -> int | None:
        """Most characters of a text that one token stands for, where the tokenizer says."""
        return self._longest

    def knows(self, model: str) -> bool:
        """Whether the template of a model is known."""
        return model == BASE or model in self._templates

    def limit(self) -> int:
        """Most tokens of prompt and answer together: ``max_length``, within the model's positions and its window."""
        config = self._loaded.model.config
        bounds = (
            self._limits.max_length,
            getattr(config, "max_position_embeddings", None),
            getattr(config, "sliding_window", None),
        )
        return min(bound for bound in bounds if bound)

    def render(self, messages: Sequence[Mapping[str, Any]], model: str, tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The prompt in the template that ``model`` was trained with; the base has its tokenizer's chat template."""
        said = read_all(messages)
        template = None if model == BASE else prompt.checked(self._template(model), model)
        with self._encoding:
            if template is None:
                return prompt.of_base(self._tokenizer, said, tools)
            prompts.require_tools(template, self._tokenizer, said, tools)
            return prompts.ask(template, self._tokenizer, said, tools)

    async def generate(self, request: GenerationRequest) -> AsyncIterator[Chunk]:
        """Generate an answer, chunk by chunk; closing the iterator frees the place at the next token.

        Raised on the first step of the iteration, before any chunk. A deadline ends an answer with ``length``.

        Raises:
            BusyError: The queue is full, or the deadline passed before there was a place for the answer or its adapter.
            GrammarError: The answer cannot be held to its grammar.
            ModelError: No such model is loaded or can be, or the prompt leaves no room for an answer.
        """
        deadline = time.monotonic() + min(request.deadline, self._limits.deadline_seconds)
        self._enter()
        adapter: LoraAdapter | None = None
        generation: Generation | None = None
        try:
            given = request.ids
            prompt = list(given) if given is not None else await self._encoders.run(self._encode, request.prompt)
            room = self._room(prompt)
            wanted = request.grammar
            constraint = await self._grammars.run(self._constraints.make, wanted) if wanted else None
            adapter = await self._adapter(request.model, deadline)
            if request.echo:
                yield await self._scorers.run(self._echo, request, prompt, adapter)
            generation = Generation(request, prompt, room, adapter, self._tokenizer, deadline, constraint)
            finished = request.max_tokens == 0
            if not finished:
                self._scheduler.enter(generation)
            while not finished:
                chunk = await generation.chunks.get()
                if isinstance(chunk, Exception):
                    raise chunk
                finished = chunk.finish is not None
                yield chunk
        finally:
            self._leave()
            if generation is not None:
                generation.cancelled = True
            if adapter is not None:
                self._cache.give(adapter)

    def _echo(self, request: GenerationRequest, prompt: list[int], adapter: LoraAdapter | None) -> Chunk:
        """The prompt as a chunk, with the log-probabilities of its tokens where they are asked for."""
        finish = None if request.max_tokens else "length"
        if request.logprobs is None:
            return Chunk(text=request.prompt, echo=True, finish=finish)
        count = request.logprobs
        told = self._scheduler.call(lambda: scores(self._scheduler.batch.score(prompt, adapter), prompt, count))
        with self._encoding:
            named = tuple(
                (
                    token_text(self._tokenizer, token),
                    own,
                    {token_text(self._tokenizer, other): value for other, value in top},
                )
                for token, (own, top) in zip(prompt, told, strict=True)
            )
        return Chunk(text=request.prompt, echo=True, logprobs=named, finish=finish)

    def _room(self, prompt: list[int]) -> int:
        room = self.limit() - len(prompt)
        if not prompt or room < 1:
            raise ModelError(f"the prompt has {len(prompt)} tokens; it must have 1 to {self.limit() - 1}")
        return room

    def _enter(self) -> None:
        with self._counting:
            if self._admitted >= self._limits.max_batch + self._limits.max_queue:
                raise BusyError(f"{self._admitted} requests are answered or wait (serve.max_queue); ask again later")
            self._admitted += 1

    def _leave(self) -> None:
        with self._counting:
            self._admitted -= 1

    async def _adapter(self, model: str, deadline: float) -> LoraAdapter | None:
        """The adapter, held; one that is not in memory is loaded as soon as there is a place for it."""
        if model == BASE:
            return None
        adapter = self._cache.take(model)
        with self._counting:
            self._hits += adapter is not None
            self._misses += adapter is None
        while adapter is None:
            if time.monotonic() > deadline:
                raise BusyError(f"no place for {model} came free before the deadline (serve.max_adapters)")
            if self._cache.has_room(model):
                await self._loaders.run(self._load_registered, model)
                adapter = self._cache.take(model)
            else:
                await asyncio.sleep(PATIENCE)
        return adapter

    def _load_registered(self, model: str) -> None:
        """Load a registered version, unless another request has done so meanwhile."""
        with self._loading:
            if model not in self._cache.names() and self._cache.has_room(model):
                self._validate_and_add(model, self._version(model))

    def _version(self, model: str) -> Version:
        if self._resolve is None:
            raise ModelError(f"{model} is not loaded; there are {', '.join(self.loaded())}")
        return self._resolve(model)

    def _template(self, model: str) -> str:
        if model not in self._templates:
            self._templates[model] = self._version(model).manifest.template
        return self._templates[model]

    def _validate_and_add(self, model: str, version: Version) -> None:
        try:
            template = prompt.checked(version.manifest.template, model)
            adapter = self._validator.read(model, version)
            self._scheduler.call(lambda: self._probe(adapter, version))
        except (ModelError, ArtefactError):
            self._refused += 1
            raise
        self._cache.put(adapter)
        self._templates[model] = template
        self._loads += 1

    def _probe(self, adapter: LoraAdapter, version: Version) -> None:
        """Compare base and adapter on one prompt, on the model's thread."""
        recorded = version.manifest.probe
        ids = self._encode(recorded.prompt if recorded else PROBE)
        base, adapted = self._scheduler.batch.probe(ids, adapter)
        require_agreement(adapter.name, version.manifest, base, adapted)

    def _encode(self, text: str) -> list[int]:
        with self._encoding:  # a fast tokenizer cannot be used by two threads at once
            return encode_prompt(self._tokenizer, text)


def _ends(loaded: LoadedModel) -> frozenset[int]:
    """The tokenizer's end token and those of the model's generation settings."""
    own = getattr(loaded.model.generation_config, "eos_token_id", None)
    ends = {loaded.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own])}
    return frozenset(end for end in ends if isinstance(end, int))
