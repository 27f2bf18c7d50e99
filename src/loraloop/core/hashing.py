"""SHA-256 of files, bytes and plain values, as 64 hex digits."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def sha256(content: Path | bytes) -> str:
    """Hash of a file's content, or of bytes.

    Raises:
        OSError: The file cannot be read.
    """
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hash of a JSON value; the order of an object's keys does not matter."""
    return sha256(json.dumps(value, sort_keys=True).encode())
