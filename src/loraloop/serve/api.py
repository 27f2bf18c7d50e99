"""The server's application: OpenAI's chat, completions and responses, vLLM's adapter routes, health and metrics."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from pydantic import BaseModel

from loraloop import __version__
from loraloop.core.workers import Workers
from loraloop.errors import LoraloopError
from loraloop.serve import errors
from loraloop.serve.adapters import Adapters
from loraloop.serve.conversation import Reader
from loraloop.serve.guard import HEALTH, Guard, needs
from loraloop.serve.names import BASE
from loraloop.serve.refreshed import Refreshed
from loraloop.serve.responses import Responses
from loraloop.serve.responses_schema import NeutralResponses, ResponsesRequest
from loraloop.serve.routing import ListRollouts, Router
from loraloop.serve.schema import (
    ChatRequest,
    CompletionRequest,
    LoadRequest,
    NeutralChat,
    NeutralCompletion,
    UnloadRequest,
)
from loraloop.serve.service import Service

if TYPE_CHECKING:
    from loraloop.protocols import Backend, Metrics, Ocr, Sessions
    from loraloop.serve.names import Versions
    from loraloop.serve.server import Server
    from loraloop.serve.speech import Recogniser

READY_SECONDS = 1.0
"""For how long the backend's state is believed."""
HANGING_SECONDS = 10.0
"""A backend that has not told its state for so long is not ready."""
NEUTRAL: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": NeutralChat,
    "/v1/completions": NeutralCompletion,
    "/v1/responses": NeutralResponses,
}
"""Parameters of each address that are accepted with a neutral value only."""
BODIES: dict[str, type[BaseModel]] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": CompletionRequest,
    "/v1/responses": ResponsesRequest,
}
METRICS = "text/plain; version=0.0.4; charset=utf-8"


def create_app(
    backend: Backend,
    sessions: Sessions,
    versions: Versions,
    settings: Server,
    metrics: Metrics,
    routers: Iterable[APIRouter] = (),
    ocr: Ocr | None = None,
    speech: Recogniser | None = None,
    rollouts: ListRollouts = tuple,
) -> FastAPI:
    """The application; it starts the backend when it starts and closes it when it ends.

    Args:
        backend: What generates text.
        sessions: Keeps every answer, before it ends.
        versions: Finds adapters by name.
        settings: Roles and limits.
        metrics: Counts.
        routers: More routes; each says with :func:`loraloop.serve.guard.needs` which scopes open it.
        ocr: Reads images in messages; without it they are refused.
        speech: Hears recordings in messages; without it they are refused.
        rollouts: Returns which new versions are tried on a share of conversations.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(backend.start)
        try:
            yield
        finally:
            await asyncio.to_thread(backend.close)

    app = FastAPI(title="loraloop", version=__version__, lifespan=lifespan, redoc_url=None)
    router = Router(
        versions,
        settings.roles,
        settings.alias_seconds,
        rollouts=rollouts,
        prepare=backend.prepare,
        on_behind=metrics.alias_behind,
    )
    service = Service(backend, sessions, router, settings, metrics, Reader(settings, ocr, speech))
    _answers(app, service, Responses(service))
    _adapters(app, Adapters(backend, router))
    _state(app, backend, metrics, router)
    routes = list(app.routes)
    for more in routers:
        app.include_router(more)
        routes += more.routes
    errors.install(app, *({path: form.model_fields for path, form in each.items()} for each in (NEUTRAL, BODIES)))
    app.add_middleware(Guard, routes=routes, settings=settings, metrics=metrics)
    _document(app)
    return app


def _answers(app: FastAPI, service: Service, answers: Responses) -> None:
    @app.post("/v1/chat/completions", openapi_extra=needs("infer"), response_class=Response, tags=["answers"])
    async def chat_completions(request: Request, body: ChatRequest) -> Response:
        """Answer a conversation; images are read by OCR, recordings by speech recognition."""
        return await service.chat(request, body)

    @app.post("/v1/completions", openapi_extra=needs("infer"), response_class=Response, tags=["answers"])
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Go on from a text, exactly as it is."""
        return await service.complete(request, body)

    @app.post("/v1/responses", openapi_extra=needs("infer"), response_class=Response, tags=["answers"])
    async def responses(request: Request, body: ResponsesRequest) -> Response:
        """Answer items of a conversation, as chat does."""
        return await answers.create(request, body)


def _adapters(app: FastAPI, adapters: Adapters) -> None:
    @app.get("/v1/models", openapi_extra=needs("infer", "registry"), tags=["adapters"])
    async def models() -> dict[str, Any]:
        """What answers now; adapters name their base as parent."""
        return await adapters.all()

    @app.get("/v1/models/{model:path}", openapi_extra=needs("infer", "registry"), tags=["adapters"])
    async def model(model: str) -> dict[str, Any]:
        """What answers for a name."""
        return await adapters.one(model)

    @app.post("/v1/load_lora_adapter", openapi_extra=needs("admin"), tags=["adapters"])
    async def load_lora_adapter(body: LoadRequest) -> PlainTextResponse:
        """Verify an adapter and make it answer under a name."""
        return PlainTextResponse(await adapters.load(body))

    @app.post("/v1/unload_lora_adapter", openapi_extra=needs("admin"), tags=["adapters"])
    async def unload_lora_adapter(body: UnloadRequest) -> PlainTextResponse:
        """Forget a name, and the adapter if nothing else leads to it."""
        return PlainTextResponse(await adapters.unload(body))


def _state(app: FastAPI, backend: Backend, metrics: Metrics, router: Router) -> None:
    ready = Refreshed(lambda _: _has_base(backend), False, READY_SECONDS, "the base's state", Workers("readiness", 1))
    scrapes = Workers("metrics", 1)

    @app.get("/healthz", openapi_extra=needs() | HEALTH, tags=["state"])
    async def healthz() -> dict[str, str]:
        """The process answers."""
        return {"status": "ok"}

    @app.get("/readyz", openapi_extra=needs() | HEALTH, tags=["state"])
    async def readyz() -> dict[str, Any]:
        """The base answers; and how many aliases stay on an earlier version, as theirs cannot be loaded."""
        if not await ready.get() or ready.overdue > HANGING_SECONDS:
            raise errors.ApiError(503, "the base is not loaded", code="not_ready", retry_after=errors.RETRY_SECONDS)
        return {"status": "ready", "aliases_behind": len(router.behind)}

    @app.get("/metrics", openapi_extra=needs("registry"), response_class=Response, tags=["state"])
    async def prometheus() -> Response:
        """Counts in Prometheus' text format."""
        return Response(await scrapes.run(metrics.text), media_type=METRICS)


def _has_base(backend: Backend) -> bool:
    try:
        return BASE in backend.loaded()
    except LoraloopError:
        return False


def _document(app: FastAPI) -> None:
    """Describe the key and the errors in the OpenAPI document."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            schema.setdefault("components", {})["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for operations in schema["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
                    operation["responses"]["default"] = {"description": "An error in OpenAI's shape"}
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
