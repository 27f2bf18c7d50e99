"""The checks before every route: host, key and scope, rate and size; and the count of requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from starlette.routing import Match

from loraloop.errors import LoraloopError
from loraloop.serve.errors import ApiError, of
from loraloop.serve.keys import Keys

if TYPE_CHECKING:
    from loraloop.protocols import Metrics
    from loraloop.serve.server import Server

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 30.0
"""Seconds for a body to arrive."""
UNKNOWN = "unknown"
"""The template of a path that no route has."""
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
logger = logging.getLogger(__name__)


class Guard:
    """ASGI middleware; what it refuses never reaches a route.

    A route says in its OpenAPI entry which scopes open it (:func:`needs`); one that says nothing is for ``admin``.

    Args:
        app: What it protects.
        routes: The application's routes.
        settings: Limits.
        metrics: Counts requests.
    """

    def __init__(self, app: App, routes: Iterable[Any], settings: Server, metrics: Metrics) -> None:
        from limits import parse_many
        from limits.aio.storage import MemoryStorage
        from limits.aio.strategies import MovingWindowRateLimiter

        self._app, self._routes = app, tuple(routes)
        self._settings, self._metrics = settings, metrics
        self._keys = Keys(settings.keys)
        self._limits = parse_many(settings.rate) if settings.rate else []
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._flying = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        state = scope.setdefault("state", {})
        state["began"] = started
        path, scopes = self._find(scope)

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._flying += 1
        self._metrics.began()
        try:
            await self._admit(scope, scopes)
            await self._app(scope, await self._bounded(scope, receive), watched)
        except LoraloopError as error:
            await _refuse(of(error), watched)
        except asyncio.CancelledError:
            status = 499
            raise
        finally:
            self._flying -= 1
            status = state.get("status", status)
            seconds = time.perf_counter() - started
            self._metrics.ended(path, state.get("model", ""), status, seconds)
            level = logging.DEBUG if scopes == [] else logging.INFO
            logger.log(level, "%s %s %d %.0f ms", scope["method"], path, status, 1e3 * seconds)

    async def _admit(self, scope: Scope, scopes: list[str] | None) -> None:
        headers = dict(scope["headers"])
        keys = self._keys.all()
        free = not keys and self._settings.local
        if free:
            _same_machine(headers.get(b"host", b"").decode("latin1"))
        key = self._keys.find(_secret(headers)) if keys else None
        scope["state"]["key"] = key and key.name
        client = scope.get("client") or ("",)
        await self._count(f"key {key.name}" if key else f"address {client[0]}")
        if scopes == []:
            return
        if self._flying > self._settings.max_in_flight:
            limit = f"server.max_in_flight={self._settings.max_in_flight}"
            raise ApiError(429, f"the server is full ({limit}); ask again", code="overloaded", retry_after=1)
        if free:
            return
        if key is None:
            raise ApiError(401, "no valid key; send Authorization: Bearer KEY", code="invalid_api_key")
        if not key.opens(scopes or ()):
            needed = " or ".join(dict.fromkeys([*(scopes or ()), "admin"]))
            raise ApiError(403, f"the key {key.name} lacks the scope {needed}", code="missing_scope")

    async def _count(self, client: str) -> None:
        for limit in self._limits:
            if not await self._limiter.hit(limit, client):
                reset = (await self._limiter.get_window_stats(limit, client)).reset_time
                message = f"more than {self._settings.rate} requests (server.rate)"
                raise ApiError(429, message, code="rate_limit_exceeded", retry_after=reset - time.time())

    def _find(self, scope: Scope) -> tuple[str, list[str] | None]:
        """The path's template and the scopes that open it; what matches no route is for ``admin`` too."""
        partly = None
        for route in self._routes:
            match, _ = route.matches(scope)
            if match == Match.FULL:
                return route.path, scopes_of(route)
            partly = partly or (route if match == Match.PARTIAL else None)
        return (partly.path, scopes_of(partly)) if partly else (UNKNOWN, None)

    async def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """The body, read here whole, within the limits of size and time; then what comes after it."""
        if scope["method"] not in {"POST", "PUT", "PATCH", "DELETE"}:
            return receive
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await self._body(dict(scope["headers"]), receive)
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {BODY_SECONDS:g} s", code="timeout") from None
        given = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        return replay

    async def _body(self, headers: dict[bytes, bytes], receive: Receive) -> bytes:
        limit = self._settings.max_body_bytes
        length = headers.get(b"content-length", b"0")
        body, more = bytearray(), not length.isdigit() or int(length) <= limit
        too_large = not more
        while more:
            message = await receive()
            body += message.get("body", b"")
            too_large = len(body) > limit
            more = message.get("more_body", False) and not too_large
        if too_large:
            raise ApiError(413, f"the body is larger than server.max_body_bytes={limit}", code="body_too_large")
        return bytes(body)


def needs(*scopes: str) -> dict[str, Any]:
    """What a route's ``openapi_extra`` holds: the scopes of which a key needs one; none at all for an open route."""
    return {"security": [{"key": [scope]} for scope in scopes]}


def scopes_of(route: Any) -> list[str] | None:
    """The scopes that open a route, or ``None`` if it does not say."""
    extra = getattr(route, "openapi_extra", None) or {}
    if "security" not in extra:
        return [] if getattr(route, "path", "") in {"/docs", "/openapi.json"} else None
    return [scope for choice in extra["security"] for scopes in choice.values() for scope in scopes]


def _secret(headers: dict[bytes, bytes]) -> str:
    scheme, _, secret = headers.get(b"authorization", b"").decode("latin1").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _same_machine(host: str) -> None:
    """Refuse a page elsewhere that a browser here was led to send to this address (DNS rebinding)."""
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in LOOPBACK_HOSTS:
        raise ApiError(403, "without keys the server answers to 127.0.0.1 and localhost alone", code="wrong_host")


async def _refuse(error: ApiError, send: Send) -> None:
    import orjson

    headers = {"content-type": "application/json", **error.headers}
    if error.status in {408, 413}:
        headers["connection"] = "close"  # the rest of the body is never read
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": orjson.dumps(error.body())})
