"""Passwords and keys that their own label gives away: ``password: ...``, ``api key = ...``, ``user:...@host``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from loraloop.core.secrets.confusables import loose, scrambled
from loraloop.core.secrets.keys import stretch

Span = tuple[int, int]

_SURE = (
    "password", "passwort", "passwd", "pwd", "passphrase", "passcode", "api_key", "apikey", "secret_key", "access_key",
    "client_secret", "auth_token", "access_token", "private_key", "wifi_key", "account_key", "signing_key",
    "encryption_key", "master_key", "license_key", "bearer_token", "api_token", "api_secret", "webhook_secret",
)  # fmt: skip
_VAGUE = ("pass", "secret", "token", "credentials", "key", "pw", "auth", "bearer")
_COMMON = re.compile(
    "a|an|and|any|are|as|at|be|bool|by|bytes|can|cannot|changed|default|disabled|does|empty|enabled|enter|expired|false|"
    "field|for|forgot|forgotten|from|has|hidden|if|in|incorrect|int|invalid|is|it|its|missing|must|my|name|needed|new|no|"
    "none|not|null|object|of|off|on|optional|or|protected|required|reset|see|set|should|str|string|text|the|this|to|true|"
    "unknown|unset|use|used|user|value|was|were|when|which|will|with|wrong|x+|yes|you|your\\w*",
    re.IGNORECASE,
)
"""What a label is followed by in prose and in code that tells of passwords without giving one."""


def _label(words: tuple[str, ...]) -> str:
    return "|".join(loose(word, r"\s?") for word in sorted(words, key=len, reverse=True))


_SEPARATOR = r"[\"'”]?\s{0,3}(?::=|=>|[:=;])\s*"
_OPENING = "<{$([*%•"  # of place holders and expressions
_QUOTES = "\"'“”‘’`"
_VALUE = rf"[{_QUOTES}]?(?P<value>[^\s{_QUOTES}]+)"
_SURE_PAIR = re.compile(rf"(?:{_label(_SURE)}){_SEPARATOR}{_VALUE}(?P<rest>[^\n]*)", re.IGNORECASE)
_VAGUE_PAIR = re.compile(rf"(?<![A-Za-z])(?:{_label(_VAGUE)}){_SEPARATOR}{_VALUE}(?P<rest>[^\n]*)", re.IGNORECASE)
_BARE_PAIR = re.compile(rf"(?<![A-Za-z])(?:{_label(_SURE)})(?:\s+(?:is\s+)?){_VALUE}", re.IGNORECASE)
_ISSUER = "sk-(?:ant-|proj-)?|[sr]k_(?:live|test)_|gh[pousr]_|glpat-|xox[bp]-"
_BEFORE = rf"[{_QUOTES}\])]{{0,3}}(?:{_SEPARATOR}|\s{{1,3}}(?:is\s{{1,3}})?)[{_QUOTES}]?"
_PREFIXED_PAIRS = [
    re.compile(
        rf"(?:{labels}){_BEFORE}(?P<value>(?:{issuers})(?!x{{4}}|your|example)[A-Za-z0-9]{{6}}[\w\-]*)", re.IGNORECASE
    )
    for labels, issuers in (
        (_label(_SURE), f"{_ISSUER}|hf_"),
        (rf"(?<![A-Za-z])(?:{_label(('key', 'token', 'secret', 'bearer'))})", _ISSUER),
    )
]
"""An issuer's prefix makes a key of any length of what stands beside a label."""
_PHRASE = re.compile(
    rf"(?<![A-Za-z])(?:{loose('passphrase')}|(?:seed|recovery|backup)[ _-]?phrase){_SEPARATOR}"
    r"(?P<value>[a-z0-9]+(?:[ \-]+[a-z0-9]+){2,23})",
    re.IGNORECASE,
)
_PIN = re.compile(
    r"(?<![A-Za-z])[Pp][Ii1l][Nn](?:[ -]?[Cc][Oo0]de)?\s{0,2}[:=;]\s*(?P<value>[0-9OlISB]{4,8})(?![A-Za-z0-9])"
)
_ADDRESS = re.compile(r"[a-z][a-z+]{1,12}\s?:\s?/\s?/\s?[^\s:@/]+\s?:\s?(?P<value>[^\s@/]{3,})\s?@\s?[A-Za-z0-9]")


def pairs(text: str) -> Iterator[Span]:
    """Values beside a label that says what they are."""
    for match in _SURE_PAIR.finditer(text):
        if _strong(match["value"]) or _alone(match):
            yield _value(match)
    for match in _VAGUE_PAIR.finditer(text):
        if _strong(match["value"], 8) and any(map(str.isdigit, match["value"])):
            yield _value(match)
    for match in _BARE_PAIR.finditer(text):
        if _strong(match["value"], 8) and _mixed(match["value"]):
            yield _value(match)
    for match in _PHRASE.finditer(text):
        if not any(map(_COMMON.fullmatch, match["value"].split())):
            yield _value(match)
    prefixed = (match for pattern in _PREFIXED_PAIRS for match in pattern.finditer(text))
    for match in (*_PIN.finditer(text), *_ADDRESS.finditer(text), *prefixed):
        yield _value(match)


def _value(match: re.Match[str]) -> Span:
    start, end = match.span("value")
    return start, stretch(match.string, end) if scrambled(match["value"]) else end


def _strong(value: str, shortest: int = 6) -> bool:
    """A value that is no word, no name of a variable and no place holder."""
    value = value.rstrip(".,;:)")
    figures, letters = sum(map(str.isdigit, value)), sum(map(str.isalpha, value))
    if len(value) < shortest or value[0] in _OPENING or not letters:
        return False
    return figures >= 1 or bool(re.search(r"[!@#$%^&*?+~]", value) and "(" not in value)


def _mixed(value: str) -> bool:
    """Two figures, or three of capitals, small letters, figures and marks: no word, even when it was misread."""
    kinds = {(mark.isupper(), mark.islower(), mark.isdigit()) for mark in value.rstrip(".,;:)")}
    return sum(map(str.isdigit, value)) >= 2 or len(kinds) >= 3


def _alone(match: re.Match[str]) -> bool:
    """A single word that nothing follows on its line: what a label is filled in with."""
    value = match["value"].strip(_QUOTES + ".,;")
    word = len(value) >= 4 and value[0] not in _OPENING and not _COMMON.fullmatch(value)
    return word and not match["rest"].strip(_QUOTES + " .,;") and len(set(value)) > 2
