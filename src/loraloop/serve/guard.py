"""The checks before every route: host, key and scope, rate and size; and the count of requests."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.routing import Match

from loraloop.errors import LoraloopError
from loraloop.serve.errors import ApiError, of
from loraloop.serve.keys import Keys
from loraloop.serve.rate import Rate

if TYPE_CHECKING:
    from loraloop.protocols import Metrics
    from loraloop.serve.server import Server

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

BODY_SECONDS = 30.0
"""Seconds for a body to arrive."""
HEALTH = {"x-health": True}
"""In ``openapi_extra``: the route says whether the server is well."""
UNKNOWN = "unknown"
"""The template of a path that no route has."""
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
FORWARDED = (b"forwarded", b"via", b"x-real-ip", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto")
OPEN_SHARE = 4
"""Open routes get one place of so many: who has no key cannot take every place of those who have."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use a route, and how.

    Attributes:
        path: Its template.
        scopes: Of which a key needs one; none at all for an open route; ``None`` is for ``admin`` alone.
        health: It is answered whatever else holds: no key, no rate and no place is asked for.
        body_bytes: Its largest body, below ``server.max_body_bytes``.
    """

    path: str
    scopes: list[str] | None = None
    health: bool = False
    body_bytes: int | None = None

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return self.scopes == []


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

        self._app, self._routes = app, tuple(routes)
        self._settings, self._metrics = settings, metrics
        self._keys = Keys(settings.keys)
        limits = parse_many(settings.rate) if settings.rate else []
        self._rates = [Rate(limit.amount, limit.get_expiry()) for limit in limits]
        self._flying = {True: 0, False: 0}
        """Requests now, of open routes and of the others."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500
        state = scope.setdefault("state", {})
        state["began"] = started
        route = self._find(scope)
        if route.health:
            await self._app(scope, receive, send)
            return

        async def watched(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._flying[route.open] += 1
        self._metrics.began()
        try:
            self._admit(scope, route)
            await self._app(scope, await self._bounded(scope, receive, route), watched)
        except LoraloopError as error:
            await _refuse(of(error), watched)
        except asyncio.CancelledError:
            status = 499
            raise
        finally:
            self._flying[route.open] -= 1
            status = state.get("status", status)
            seconds = time.perf_counter() - started
            self._metrics.ended(route.path, state.get("model", ""), status, seconds)
            level = logging.DEBUG if route.open else logging.INFO
            logger.log(level, "%s %s %d %.0f ms", scope["method"], route.path, status, 1e3 * seconds)

    def _admit(self, scope: Scope, route: Access) -> None:
        headers = dict(scope["headers"])
        keyless = self._settings.local and (self._settings.open or not self._keys.needed())
        if keyless:
            _same_machine(scope, headers)
        scope["state"]["keyless"] = keyless
        key = None if keyless else self._keys.find(_secret(headers))
        scope["state"]["key"], scope["state"]["scopes"] = key and key.name, key.scopes if key else ()
        client = scope.get("client") or ("",)
        self._count(f"key {key.name}" if key else f"address {client[0]}")
        self._require_place(route)
        if route.open or keyless:
            return
        if key is None:
            raise ApiError(401, "no valid key; send Authorization: Bearer KEY", code="invalid_api_key")
        if route.path != UNKNOWN and not key.opens(route.scopes or ()):  # an unknown route is not found, for any key
            needed = " or ".join(dict.fromkeys([*(route.scopes or ()), "admin"]))
            raise ApiError(403, f"the key {key.name} lacks the scope {needed}", code="missing_scope")

    def _require_place(self, route: Access) -> None:
        most = self._settings.max_in_flight
        if sum(self._flying.values()) > most or (route.open and self._flying[True] > max(1, most // OPEN_SHARE)):
            message = f"the server is full (server.max_in_flight={most}); ask again"
            raise ApiError(429, message, code="overloaded", retry_after=1)

    def _count(self, client: str) -> None:
        wait = max((rate.wait(client) for rate in self._rates), default=0.0)
        if wait > 0:
            message = f"more than {self._settings.rate} requests (server.rate)"
            raise ApiError(429, message, code="rate_limit_exceeded", retry_after=wait)

    def _find(self, scope: Scope) -> Access:
        """What a route says of itself; what matches no route is for ``admin``."""
        partly = None
        for route in self._routes:
            match, _ = route.matches(scope)
            if match == Match.FULL:
                return access(route)
            partly = partly or (route if match == Match.PARTIAL else None)
        return access(partly) if partly else Access(UNKNOWN)

    async def _bounded(self, scope: Scope, receive: Receive, route: Access) -> Receive:
        """The body, read here whole, within the limits of size and time; then what comes after it."""
        if scope["method"] not in {"POST", "PUT", "PATCH", "DELETE"}:
            return receive
        limit, name = self._settings.max_body_bytes, "server.max_body_bytes"
        if route.body_bytes is not None and route.body_bytes < limit:
            limit, name = route.body_bytes, "what this address takes"
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(dict(scope["headers"]), receive, limit, name)
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


async def _body(headers: dict[bytes, bytes], receive: Receive, limit: int, name: str) -> bytes:
    length = headers.get(b"content-length", b"0")
    body, more = bytearray(), not length.isdigit() or int(length) <= limit
    too_large = not more
    while more:
        message = await receive()
        body += message.get("body", b"")
        too_large = len(body) > limit
        more = message.get("more_body", False) and not too_large
    if too_large:
        raise ApiError(413, f"the body is larger than {name}={limit}", code="body_too_large")
    return bytes(body)


def needs(*scopes: str) -> dict[str, Any]:
    """What a route's ``openapi_extra`` holds: the scopes of which a key needs one; none at all for an open route."""
    return {"security": [{"key": [scope]} for scope in scopes]}


def access(route: Any) -> Access:
    """What a route's ``openapi_extra`` says: ``security``, ``x-health``, and ``x-body-bytes``, its largest body."""
    extra, path = getattr(route, "openapi_extra", None) or {}, getattr(route, "path", "")
    scopes: list[str] | None = [] if path in {"/docs", "/openapi.json"} else None
    if "security" in extra:
        scopes = [scope for choice in extra["security"] for scopes in choice.values() for scope in scopes]
    return Access(path, scopes, bool(extra.get("x-health")), extra.get("x-body-bytes"))


def _secret(headers: dict[bytes, bytes]) -> str:
    scheme, _, secret = headers.get(b"authorization", b"").decode("latin1").partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""


def _same_machine(scope: Scope, headers: dict[bytes, bytes]) -> None:
    """Refuse what did not come from a program on this machine.

    That is a page elsewhere that a browser here was led to send to this address (DNS rebinding), which has another
    host's name, and what a proxy passes on: it says so in a header, or speaks HTTP/1.0 as nginx does by itself.
    """
    host = headers.get(b"host", b"").decode("latin1")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in LOOPBACK_HOSTS or not _loopback((scope.get("client") or ("",))[0]):
        raise ApiError(403, "without keys the server answers to 127.0.0.1 and localhost alone", code="wrong_host")
    if scope.get("http_version") == "1.0" or any(header in headers for header in FORWARDED):
        message = "without keys the server answers no proxy: make a key first (loraloop stage=keys name=NAME)"
        raise ApiError(403, message, code="forwarded")


def _loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


async def _refuse(error: ApiError, send: Send) -> None:
    import orjson

    headers = {"content-type": "application/json", **error.headers}
    if error.status in {408, 413}:
        headers["connection"] = "close"  # the rest of the body is never read
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": raw})
    await send({"type": "http.response.body", "body": orjson.dumps(error.body())})
