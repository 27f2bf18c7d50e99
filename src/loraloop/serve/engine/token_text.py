"""The text of single tokens, of which some are a part of a character."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from loraloop.serve.engine.decoder import REPLACEMENT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""How SentencePiece names a byte."""


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    r"""A token's text; a part of a character is written as ``bytes:\xf0\x9f``, as OpenAI writes it."""
    text = str(tokenizer.decode([token]))
    if REPLACEMENT not in text:
        return text
    name = str(tokenizer.convert_ids_to_tokens(token))
    held = _held(name)
    return name if held is None else "bytes:" + "".join(f"\\x{each:02x}" for each in held)


def _held(name: str) -> bytes | None:
    """The bytes that a name in the vocabulary stands for; ``None`` where it names no bytes."""
    if match := BYTE.fullmatch(name):
        return bytes.fromhex(match[1])
    known = _bytes()
    return bytes(known[each] for each in name) if all(each in known for each in name) else None


@cache
def _bytes() -> dict[str, int]:
    """The byte behind each character of a byte-level vocabulary's names (GPT-2's ``bytes_to_unicode``)."""
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in shown]
    return {chr(byte): byte for byte in shown} | {chr(256 + place): byte for place, byte in enumerate(others)}
