"""Who may see the page ``/review``: whoever has a key with the scope ``review``, which a cookie then stands for."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request
from fastapi.responses import Response
from itsdangerous import BadData

from loraloop.feedback.links import Links

COOKIE = "loraloop_review"
HOURS = 12
"""For how long a key need not be given again."""
SCOPES = ("review",)
FINGERPRINT = 16
"""Digits of the key's hash in the cookie: a revoked key, and another one of its name, open nothing."""


class Key(Protocol):
    """A key of the server, as it is kept."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def sha256(self) -> str:
        """Its hash."""
        ...

    def opens(self, scopes: Sequence[str]) -> bool:
        """Whether it has one of these scopes."""
        ...


class Keys(Protocol):
    """The server's keys."""

    def find(self, secret: str) -> Key | None:
        """The key with that text."""
        ...

    def all(self) -> Sequence[Key]:
        """Every key."""
        ...


@dataclass(frozen=True, slots=True)
class Visit:
    """A browser that has the page open.

    Attributes:
        admitted: Whether it may see sessions.
        key: Name of its key; ``None`` where the server asks for none.
        cookie: Its cookie; the tokens of its forms belong to it.
    """

    admitted: bool
    key: str | None
    cookie: str


class Access:
    """Tells who asks, and makes the cookie.

    The cookie holds the key's name and a part of its hash, signed, and not the key. A form carries a token that belongs
    to the cookie, so that no other site can send it in a visitor's name.

    Args:
        keys: The server's.
        links: Signs.
    """

    def __init__(self, keys: Keys, links: Links) -> None:
        self._keys, self._links = keys, links

    def visit(self, request: Request) -> Visit:
        """Who asks: by the guard's word where no key is needed, else by its cookie."""
        given = request.cookies.get(COOKIE, "")
        claims = self._claims(given)
        cookie = given if claims is not None else self._made("", "")
        if getattr(request.state, "keyless", False):
            return Visit(True, None, cookie)
        name, digits, _ = claims or ("", "", "")
        found = next((each for each in self._keys.all() if each.name == name), None)
        known = found is not None and found.opens(SCOPES) and found.sha256[:FINGERPRINT] == digits
        return Visit(known, name if known else None, cookie)

    def enter(self, secret: str) -> str | None:
        """The cookie for a key; ``None`` if it does not open the page."""
        found = self._keys.find(secret.strip())
        return self._made(found.name, found.sha256[:FINGERPRINT]) if found and found.opens(SCOPES) else None

    def token(self, visit: Visit) -> str:
        """The token of this visit's forms."""
        return self._links.token("review", visit.cookie)

    def agrees(self, request: Request, token: str) -> bool:
        """Whether a form was made for the browser that sends it."""
        return self._links.agrees("review", request.cookies.get(COOKIE, ""), token)

    def _made(self, name: str, digits: str) -> str:
        return self._links.visits.dumps([name, digits, secrets.token_urlsafe(16)])

    def _claims(self, cookie: str) -> Any:
        try:
            return self._links.visits.loads(cookie, max_age=HOURS * 3600) if cookie else None
        except BadData:
            return None


def keep(response: Response, request: Request, cookie: str) -> None:
    """Give a browser its cookie."""
    secure = request.url.scheme == "https"
    # Lax: a link to the page from elsewhere opens it; a form from elsewhere comes without the cookie.
    response.set_cookie(
        COOKIE, cookie, max_age=HOURS * 3600, path="/review", httponly=True, samesite="lax", secure=secure
    )
