"""Hashes that say which base model, tokenizer and chat template an adapter was trained with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.core.hashing import sha256

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHA256 = re.compile(r"[0-9a-f]{64}")
COMMIT = re.compile(r"[0-9a-f]{40}")


def text(value: str) -> str:
    """SHA-256 of a text in UTF-8."""
    return sha256(value.encode())


def file(path: Path) -> str:
    """SHA-256 of a file; the hub's cache already names a large file's blob by it."""
    blob = path.resolve()
    if blob.parent.name == "blobs" and SHA256.fullmatch(blob.name):
        return blob.name
    return sha256(path)


def weights(folder: Path) -> str:
    """SHA-256 over the names and hashes of the configuration and of every safetensors file in ``folder``."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return text("\n".join(f"{path.name} {file(path)}" for path in files))


def commit(folder: Path | None) -> str | None:
    """The hub commit that a cached snapshot folder is named by, or ``None``."""
    return folder.name if folder is not None and COMMIT.fullmatch(folder.name) else None


def tokenizer(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of the vocabulary, its rules and the special tokens; not of how a caller last padded or truncated."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    parts = json.loads(backend.to_str()) if backend is not None else tokenizer.get_vocab()
    rules = json.dumps(parts | {"padding": None, "truncation": None}, sort_keys=True)
    special = json.dumps({name: str(token) for name, token in tokenizer.special_tokens_map.items()}, sort_keys=True)
    return text(rules + special)


def chat_template(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """SHA-256 of the chat template, or ``None`` without one."""
    return text(str(tokenizer.chat_template)) if tokenizer.chat_template else None
