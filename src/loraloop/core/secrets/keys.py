"""API keys by their issuers' prefixes, private keys by their armour, and tokens that look drawn by lot."""

from __future__ import annotations

import re
from collections.abc import Iterator

from loraloop.core.secrets.confusables import changes, loose, scrambled

Span = tuple[int, int]

PREFIXES = {
    "AKIA": 16, "ASIA": 16, "AIza": 35, "ya29.": 60, "GOCSPX-": 28,
    "ghp_": 36, "gho_": 36, "ghu_": 36, "ghs_": 36, "ghr_": 36, "github_pat_": 82, "glpat-": 20, "npm_": 36,
    "pypi-": 85, "hf_": 34, "sk-ant-": 93, "sk-proj-": 48, "sk-": 48, "sk_live_": 24, "sk_test_": 24, "rk_live_": 24,
    "pk_live_": 24, "xoxb-": 50, "xoxp-": 50, "xapp-": 50, "SG.": 66, "dop_v1_": 64, "shpat_": 32,
    "AC": 32, "SK": 32, "eyJ": 160,
}  # fmt: skip
"""Characters that usually follow an issuer's prefix, white space aside."""

_SHORTEST = 0.5  # share of the usual length below which it is no key
_BODY = r"[A-Za-z0-9_\-+/=.|!$~]"
_PIECE = re.compile(rf"\s{{0,3}}({_BODY}{{1,400}})")
_ISSUED = [
    # A lost space leaves a long prefix in the middle of a word; a short one there is chance.
    (re.compile(rf"{'' if len(prefix) > 3 else '(?<![A-Za-z0-9])'}{loose(prefix)}(?={_BODY}|\s)"), length)
    for prefix, length in sorted(PREFIXES.items(), key=lambda item: -len(item[0]))
]
_TOKEN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z0-9+/_\-|!$]{20,}={0,2}")
_IN_LINK = re.compile(r"https?://\S*$", re.IGNORECASE)  # documents and videos are named by such words
_BOT = re.compile(r"(?<!\d)\d{8,10}\s?:\s?[A-Za-z0-9_\-]{30,40}")

_LONGEST_ARMOUR = 8000  # characters; an RSA key of 8192 bits takes 6400
_GAP = r"\s?"
_DASHES = r"[\-—–_=~\s]{0,12}"
_KEY = rf"[A-Z0-9\s]{{0,14}}?{loose('PRIVATE', _GAP)}\s*{loose('KEY', _GAP)}\s*(?:{loose('BLOCK', _GAP)})?"
_ARMOUR = re.compile(rf"{_DASHES}{loose('BEGIN', _GAP)}\s*{_KEY}{_DASHES}", re.IGNORECASE)
_ARMOUR_END = re.compile(rf"{_DASHES}{loose('END', _GAP)}\s*{_KEY}{_DASHES}", re.IGNORECASE)
_ARMOURED = re.compile(r"(?:[A-Za-z0-9+/=|!$]{1,11}\s+)?(?:[A-Za-z0-9+/=|!$]{12,}\s*)+")


def issued(text: str) -> Iterator[Span]:
    """API keys with a known prefix, also broken over lines."""
    for pattern, usual in _ISSUED:
        for match in pattern.finditer(text):
            end, body = _body(text, match.end(), usual)
            if len(body) >= _SHORTEST * usual and scrambled(body):
                yield match.start(), end


def _body(text: str, start: int, usual: int) -> tuple[int, str]:
    """The key's characters from ``start``, over breaks, as long as the pieces look like parts of a key."""
    end, body = start, ""
    while len(body) < usual and (piece := _PIECE.match(text, end)):
        part = piece[1]
        if body and not scrambled(part) and len(body) + len(part) != usual:
            break
        end, body = piece.end(1), body + part
    return end, body


def stretch(text: str, end: int) -> int:
    """Where a key that was broken at ``end`` ends, over the pieces that look like parts of it."""
    while (piece := _PIECE.match(text, end)) and len(piece[1]) >= 4 and scrambled(piece[1]):
        end = piece.end(1)
    return end


def tokens(text: str) -> Iterator[Span]:
    """Long words that change between capitals, small letters and figures all the time, whoever issued them."""
    for match in (*_TOKEN.finditer(text), *_BOT.finditer(text)):
        word = match[0]
        counts = [sum(map(kind, word)) for kind in (str.isupper, str.islower, str.isdigit)]
        random = min(counts) >= 3 and changes(word) >= 0.35 * sum(counts)
        if random and not _IN_LINK.search(text, max(0, match.start() - 200), match.start()):
            yield match.start(), stretch(text, match.end())


def private(text: str) -> Iterator[Span]:
    """Private keys in their armour (RFC 7468): from the first line to the last one, or to where the letters end."""
    for match in _ARMOUR.finditer(text):
        body = _ARMOURED.match(text, match.end())
        if body is not None:
            last = _ARMOUR_END.search(text, match.end(), match.end() + _LONGEST_ARMOUR)
            yield match.start(), last.end() if last else body.end()
