"""What a judge gave before, kept as JSON files under the hash of all that decides what it is asked.

A reason may quote what was judged, and an erased session must not live on here: the value alone is kept.
"""

from __future__ import annotations

import json
from pathlib import Path

from loraloop.core import atomic
from loraloop.records import Judgement


class Cache:
    """Judgements by key; a damaged file counts as absent and is written again.

    Args:
        folder: Where the files are; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str) -> Judgement | None:
        """The judgement kept under ``key``, without its reason; it costs nothing."""
        if self._folder is None:
            return None
        try:
            kept = json.loads(self._file(key).read_bytes())
            return Judgement(value=kept["value"], cached=True)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, key: str, found: Judgement) -> None:
        """Keep the value of a judgement."""
        if self._folder is None:
            return
        with atomic.write(self._file(key)) as stream:
            stream.write(json.dumps({"value": found.value}).encode())

    def _file(self, key: str) -> Path:
        return Path(self._folder or ".") / key[:2] / f"{key}.json"
