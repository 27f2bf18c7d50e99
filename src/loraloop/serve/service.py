"""The steps of a request for an answer: route, files, prompt, backend, session, response."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from fastapi import Request
from fastapi.responses import Response

from loraloop.core.conversations import scoped
from loraloop.core.workers import Workers
from loraloop.errors import BusyError, GrammarError, LoraloopError, ModelError
from loraloop.records import GenerationRequest
from loraloop.serve import grammar, shapes
from loraloop.serve.answer import Answer, Task
from loraloop.serve.choices import Choices
from loraloop.serve.errors import ApiError, of
from loraloop.serve.schema import ChatRequest, CompletionRequest
from loraloop.serve.stream import GONE, EventStream, GoneError, unless_gone

if TYPE_CHECKING:
    from loraloop.protocols import Backend, Metrics, Sessions
    from loraloop.records import Session
    from loraloop.serve.conversation import Reader
    from loraloop.serve.routing import Route, Router
    from loraloop.serve.server import Server

DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's default of ``max_tokens`` in ``/v1/completions``."""
CONVERSATION = "x-loraloop-conversation"
IGNORED = "x-loraloop-ignored"
UNKNOWN = "unknown"
"""The name under which requests for models that do not exist are counted."""
SEEDS = 2**63 - 1
"""The API's seeds have a sign; generators take none."""
LONGEST_TOKEN = 128
"""Characters a token, where the backend does not know; a prompt that is longer for every token is not counted."""
REFUSED = (ApiError, BusyError, GrammarError)
"""Errors of a request that no version is to blame for."""
logger = logging.getLogger(__name__)


class Rendered(NamedTuple):
    """A prompt as the model gets it, how many tokens it has, and how many are left for the answer.

    ``ids`` are the tokens that a client chose itself.
    """

    text: str
    tokens: int
    room: int
    ids: tuple[int, ...] | None = None


class _Rendered:
    """The prompts of one request under one route: each is rendered once, however many choices it has."""

    def __init__(self) -> None:
        self._known: dict[int, Rendered] = {}
        self._one = asyncio.Lock()

    async def get(self, place: int, render: Callable[[], Awaitable[Rendered]]) -> Rendered:
        """The prompt at a place."""
        async with self._one:
            if place not in self._known:
                self._known[place] = await render()
            return self._known[place]


@dataclass
class Service:
    """Answers requests for chat and text completions."""

    backend: Backend
    sessions: Sessions
    router: Router
    settings: Server
    metrics: Metrics
    reader: Reader
    _prompts: Workers = field(default_factory=lambda: Workers("prompts", 2))

    async def chat(self, request: Request, body: ChatRequest) -> Response:
        """Answer ``/v1/chat/completions``."""
        return await self._respond(
            request, body, lambda: shapes.Chat(bool(body.offered), body.parallel_tool_calls is not False)
        )

    async def complete(self, request: Request, body: CompletionRequest) -> Response:
        """Answer ``/v1/completions``."""
        return await self._respond(request, body, shapes.Completion)

    async def _respond(
        self, request: Request, body: ChatRequest | CompletionRequest, form: Callable[[], shapes.Form]
    ) -> Response:
        try:
            return await unless_gone(self._answer(request, body, form), request.receive)
        except GoneError:
            request.state.status = GONE
            return Response(status_code=GONE)

    async def _answer(
        self, request: Request, body: ChatRequest | CompletionRequest, form: Callable[[], shapes.Form]
    ) -> Response:
        request.state.model = UNKNOWN
        session = uuid.uuid4().hex
        conversation = scoped(_conversation(request, body) or session, request.state.key)
        route = await self.router.route(body.model, body.retries, conversation)
        prompts: list[Any]
        prompts = [await self.reader.conversation(body.messages)] if isinstance(body, ChatRequest) else body.prompts
        rendered = _Rendered()
        try:
            answer = await self._begin(request, body, route, prompts, session, rendered)
        except REFUSED:
            raise
        except Exception as error:
            if route.stable is None:
                raise
            unexpected = error if not isinstance(error, LoraloopError) else None
            logger.error("%s (rollout %s) cannot answer: %s", route.answered, route.rollout, error, exc_info=unexpected)
            rendered = _Rendered()
            answer = await self._begin(request, body, route.back, prompts, uuid.uuid4().hex, rendered)
        headers = {"x-loraloop-session": answer.task.id, "x-loraloop-rate": answer.task.link}
        if answer.task.route.rollout is not None:
            headers["x-loraloop-rollout"] = answer.task.route.rollout
        if isinstance(body, ChatRequest) and body.ignored:
            headers[IGNORED] = ", ".join(body.ignored)
        others = [
            partial(
                self._begin,
                request,
                body,
                answer.task.route,
                prompts,
                uuid.uuid4().hex,
                rendered,
                place,
                answer.task.id,
            )
            for place in range(1, len(prompts) * body.choices)
        ]
        choices = Choices(answer, others, form, body.counted)
        async with _kept(choices):
            if body.stream:
                return EventStream(_events(choices), choices.close, headers)
            return Response(orjson.dumps(await choices.whole()), headers=headers, media_type="application/json")

    async def _begin(
        self,
        request: Request,
        body: ChatRequest | CompletionRequest,
        route: Route,
        prompts: Sequence[Any],
        session: str,
        known: _Rendered,
        place: int = 0,
        first: str | None = None,
    ) -> Answer:
        """An answer with its first chunk; a version that cannot answer leaves a session with the status ``error``.

        Args:
            request: What came.
            body: Its body.
            route: Where it goes.
            prompts: Of the body, files read.
            session: The answer's id.
            known: What its siblings have rendered for this route.
            place: Of the choice among those of all prompts, which are in the order of the prompts.
            first: The request's first session, which names the conversation of them all where the client does not.
        """
        request.state.model = route.answered
        fault: Exception | None = None
        prompt = prompts[place // body.choices]
        rendered = Rendered("", 0, 1)
        try:
            workers = self._prompts if self.backend.knows(route.answered) else self.router.workers
            render = partial(workers.run, self._render, body, prompt, route.answered)
            rendered = await known.get(place // body.choices, render)
        except REFUSED:
            raise
        except Exception as error:  # the version holds the template, so neither can be had
            fault = error
        task = Task(
            id=session,
            link=self.sessions.link(session),
            route=route,
            prompt=prompt if isinstance(body, ChatRequest) else rendered.text or prompt,
            counts_prompt=place % body.choices == 0,
            tools=body.offered if isinstance(body, ChatRequest) else [],
            parallel=not isinstance(body, ChatRequest) or body.parallel_tool_calls is not False,
            request=self._request(body, route.answered, rendered, place, request.state.key),
            tokens=rendered.tokens,
            retries=body.retries,
            began=request.state.began,
            conversation=_conversation(request, body)
            or first
            or (session if len(prompts) * body.choices > 1 else None),
            follows=follows.id if (follows := _follows(request)) else None,
            client=body.client or request.state.key,
            key=request.state.key,
        )
        answer = Answer(task, self.backend, self.sessions, self.metrics)
        async with _kept(answer):
            if fault is not None:
                raise fault
            await answer.begin()
        return answer

    def _request(
        self, body: ChatRequest | CompletionRequest, model: str, rendered: Rendered, place: int, key: str | None
    ) -> GenerationRequest:
        if isinstance(body, ChatRequest):
            logprobs = (body.top_logprobs or 0) if body.logprobs else None
        else:
            logprobs = body.logprobs
        return GenerationRequest(
            model=model,
            prompt=rendered.text,
            max_tokens=rendered.room,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=max(0, body.top_k or 0),
            stop=body.stops,
            seed=None if body.seed is None else (body.seed + place) & SEEDS,
            logprobs=logprobs,
            ids=rendered.ids,
            echo=isinstance(body, CompletionRequest) and bool(body.echo),
            frequency_penalty=body.frequency_penalty or 0.0,
            presence_penalty=body.presence_penalty or 0.0,
            bias=body.bias,
            deadline=self.settings.deadline_seconds,
            grammar=body.grammar if isinstance(body, ChatRequest) else None,
            cache_scope=key,
        )

    def _render(self, body: ChatRequest | CompletionRequest, prompt: Any, model: str) -> Rendered:
        if isinstance(body, ChatRequest):
            asked, param = body.max_completion_tokens or body.max_tokens, "messages"
        else:
            default = min(DEFAULT_COMPLETION_TOKENS, self.settings.max_tokens)
            asked, param = default if body.max_tokens is None else body.max_tokens, "prompt"
        self._text([token for token, _ in body.bias], "logit_bias")
        if isinstance(body, CompletionRequest) and not isinstance(prompt, str):
            return self._chosen(prompt, asked, param)
        limit = self.backend.limit()
        size = len(prompt) if isinstance(prompt, str) else sum(map(_size, prompt))
        size += sum(len(orjson.dumps(tool)) for tool in body.offered) if isinstance(body, ChatRequest) else 0
        if size > (self.backend.longest_token() or LONGEST_TOKEN) * limit:
            raise _too_long(f"{size} characters", limit, param)
        if isinstance(body, ChatRequest):
            grammar.check(body.grammar)
        try:
            text = prompt if isinstance(body, CompletionRequest) else self.backend.render(prompt, model, body.offered)
        except ModelError as error:
            raise ApiError(400, str(error), param=param, code="invalid_value") from error
        tokens = self.backend.tokens(text)
        return Rendered(text, tokens, self._room(asked, tokens, limit, param))

    def _chosen(self, ids: Sequence[int], asked: int | None, param: str) -> Rendered:
        """A prompt of tokens that the client chose."""
        room = self._room(asked, len(ids), self.backend.limit(), param)
        return Rendered(self._text(ids, param), len(ids), room, tuple(ids))

    def _text(self, ids: Sequence[int], param: str) -> str:
        try:
            return self.backend.text(ids) if ids else ""
        except ModelError as error:
            raise ApiError(400, f"{param}: {error}", param=param, code="invalid_value") from error

    def _room(self, asked: int | None, tokens: int, limit: int, param: str) -> int:
        """How many tokens the answer may have."""
        if tokens >= limit:
            raise _too_long(f"{tokens} tokens", limit, param)
        most = self.settings.max_tokens
        return min(most if asked is None else asked, most, limit - tokens)


def _conversation(request: Request, body: ChatRequest | CompletionRequest) -> str | None:
    """What the request is part of: what its metadata says, else its header, else the conversation that it goes on from.

    Where that has no name, it has the id that the store gave it.
    """
    named = body.conversation or request.headers.get(CONVERSATION)
    if named is None and (follows := _follows(request)) is not None:
        return follows.conversation or follows.conversation_id or follows.id
    if named is not None and not 1 <= len(named) <= 256:
        raise ApiError(400, f"{CONVERSATION} has 1 to 256 characters, not {len(named)}", code="invalid_value")
    return named


def _follows(request: Request) -> Session | None:
    """The session whose answer the request says that it goes on from."""
    return getattr(request.state, "follows", None)


def _size(turn: Mapping[str, Any]) -> int:
    """Characters of a turn's text and of the arguments of its calls."""
    calls = turn.get("tool_calls") or ()
    return len(turn["content"]) + sum(len(call["function"]["arguments"]) for call in calls)


@asynccontextmanager
async def _kept(answer: Answer | Choices) -> AsyncIterator[None]:
    """Where the block ends early, close the answer and keep what was generated."""
    try:
        yield
    except asyncio.CancelledError:
        await answer.close("cancelled")
        raise
    except Exception as error:
        if answer.begun or not isinstance(error, REFUSED):  # a refused request was not served
            await answer.close(_status(error))
        raise


def _status(error: Exception) -> str:
    """How an answer ends that ``error`` breaks off: a refusal is no fault of the version that answers."""
    return "cancelled" if isinstance(error, REFUSED) else "error"


async def _events(choices: Choices) -> AsyncIterator[Any]:
    try:
        async for event in choices.events():
            yield event
    except Exception as error:  # whatever it was, the client has not left
        await choices.close(_status(error))
        yield of(error).body()
        return
    yield b"[DONE]"


def _too_long(size: str, limit: int, param: str) -> ApiError:
    message = f"the model takes {limit} tokens of prompt and answer together, and the prompt has {size}: shorten it"
    return ApiError(400, message, param=param, code="context_length_exceeded")
