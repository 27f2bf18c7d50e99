"""Pages of plain HTML: their templates, headers and forms."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "pages"), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


@dataclass(frozen=True, slots=True)
class Notice:
    """A page with a title and a sentence, and its HTTP status."""

    status: int
    title: str
    text: str


def page(name: str, status: int, *, script: bool = False, **values: Any) -> HTMLResponse:
    """A page that loads nothing, is in no frame and in no cache.

    Args:
        name: Of the template.
        status: Of HTTP.
        script: Whether the one script of the template may run.
        values: What the template shows, as text.
    """
    nonce = secrets.token_urlsafe(16)
    policy = f"default-src 'none'; style-src 'nonce-{nonce}'; "
    policy += f"script-src 'nonce-{nonce}'; " if script else ""
    policy += "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    headers = {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "cache-control": "no-store",
    }
    return HTMLResponse(PAGES.get_template(name).render(nonce=nonce, **values), status, headers)


def message(notice: Notice) -> HTMLResponse:
    """The page of a notice."""
    return page("message.html", notice.status, title=notice.title, text=notice.text)


async def fields(request: Request, most_bytes: int, most: int, *, blank: bool = False) -> dict[str, list[str]] | None:
    """The fields of a form that was sent; ``None`` where they are too long or too many.

    Args:
        request: With the form as its body.
        most_bytes: Of the body.
        most: Fields.
        blank: Whether empty ones count.
    """
    body = await request.body()
    if len(body) > most_bytes:
        return None
    try:
        found = parse_qs(body.decode("ascii", "replace"), keep_blank_values=blank, max_num_fields=most)
    except ValueError:
        return None
    return {name: [value.replace("\r\n", "\n") for value in values] for name, values in found.items()}
