"""All rules together: what is found, where, and the text without it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from loraloop.core.secrets import keys, numbers, passwords

Span = tuple[int, int]

_NAME = r"[A-Za-z0-9\-]{1,63}"
_EMAIL = re.compile(
    rf"[A-Za-z0-9._%+\-]{{1,64}}\s?(?:@|\(a\)|\(at\)|©|®)\s?{_NAME}(?:\s?\.\s?{_NAME}){{0,4}}\s?\.\s?[A-Za-z]{{2,}}"
)
_LEFT_OUT = ("high_entropy_strings", "ip_public", "keyword", "private_key")
"""Modules of detect-secrets: hashes and addresses are no secrets, labels and armour are known better here."""


@dataclass(frozen=True, slots=True, order=True)
class Secret:
    """Where a secret is in a text, and of what kind; never what it is."""

    start: int
    end: int
    kind: str


def find(text: str, emails: bool = False) -> tuple[Secret, ...]:
    """The secrets in ``text``, from front to back and without overlaps.

    Args:
        text: As it was read, errors and line breaks included.
        emails: Whether e-mail addresses count.
    """
    found: list[Secret] = []
    for kind, rule in RULES.items():
        found += (Secret(start, end, kind) for start, end in rule(text))
    if emails:
        found += (Secret(*match.span(), "e-mail address") for match in _EMAIL.finditer(text))
    return _apart(found)


def mask(text: str, found: Iterable[Secret]) -> str:
    """``text`` with each secret replaced by its kind in brackets."""
    for secret in sorted(found, reverse=True):
        text = f"{text[: secret.start]}[{secret.kind}]{text[secret.end :]}"
    return text


def describe(text: str, found: Iterable[Secret]) -> str:
    """Kinds and lines, fit for a log: ``a password on line 2, a card number on line 5``."""
    told = (f"{secret.kind} on line {text.count(chr(10), 0, secret.start) + 1}" for secret in found)
    return ", ".join(dict.fromkeys(told))


def _apart(found: list[Secret]) -> tuple[Secret, ...]:
    """Overlapping findings as one, under the kind of the first rule."""
    order = {kind: place for place, kind in enumerate(RULES)}
    apart: list[Secret] = []
    for secret in sorted(found):
        if apart and secret.start < apart[-1].end:
            last = apart.pop()
            kind = min(last.kind, secret.kind, key=lambda one: order.get(one, len(order)))
            secret = Secret(last.start, max(last.end, secret.end), kind)
        apart.append(secret)
    return tuple(apart)


def _known(text: str) -> Iterator[Span]:
    """What detect-secrets finds. Its plugins are asked for their patterns alone: its scan would verify keys online."""
    start = 0
    for line in text.splitlines(keepends=True):
        for plugin in _plugins():
            for value in plugin.analyze_string(line):
                place = line.find(value)
                if value and place >= 0:
                    yield start + place, start + place + len(value)
        start += len(line)


@cache
def _plugins() -> tuple[Any, ...]:
    from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class

    classes: Iterable[Any] = get_mapping_from_secret_type_to_class().values()
    return tuple(one() for one in classes if one.__module__.rpartition(".")[2] not in _LEFT_OUT)


RULES: dict[str, Callable[[str], Iterator[Span]]] = {
    "private key": keys.private,
    "IBAN": numbers.ibans,
    "card number": numbers.cards,
    "API key": keys.issued,
    "password": passwords.pairs,
    "token": keys.tokens,
    "key": _known,
}
"""By kind, the surest first: where two overlap, the first names what was found."""
