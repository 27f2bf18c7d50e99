"""Pages already read, kept as JSON files under the hash of all that decides their text."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

from loraloop.core import atomic
from loraloop.records import Page, Word


class Cache:
    """Read pages by key; a damaged file counts as absent and is written again.

    Args:
        folder: Where the files are; ``None`` keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def get(self, key: str, image: str) -> Page | None:
        """The page kept under ``key``, under the name ``image``."""
        if self._folder is None:
            return None
        try:
            kept = json.loads(self._file(key).read_bytes())
            words = tuple(Word(text, confidence, tuple(box)) for text, confidence, box in kept.pop("words"))
            return replace(Page(**{**kept, "words": words, "steps": tuple(kept["steps"])}), image=image)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def put(self, key: str, page: Page) -> None:
        """Keep ``page`` under ``key``."""
        if self._folder is None:
            return
        kept = asdict(page) | {"words": [[word.text, word.confidence, word.box] for word in page.words]}
        with atomic.write(self._file(key)) as stream:
            stream.write(json.dumps(kept).encode())

    def _file(self, key: str) -> Path:
        return Path(self._folder or ".") / key[:2] / f"{key}.json"
