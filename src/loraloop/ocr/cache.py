"""Pages already read, kept as JSON files under the hash of all that decides their text.

The text lies there in clear, so that of a page with a secret or an e-mail address is not kept: such a page is read
again each time. The files are bounded in number and in size; the oldest make room.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from loraloop.core import atomic, secrets
from loraloop.records import Page, Word

LARGEST = 256 * 2**20
"""Bytes of all files."""
MOST = 20_000
"""Files."""
OFTEN = 500
"""Pages that a process keeps between two looks at the bounds."""
_kept = itertools.count()


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
        """Keep ``page`` under ``key``, unless its text holds a secret."""
        if self._folder is None or secrets.find(page.text, emails=True):
            return
        kept = asdict(page) | {"words": [[word.text, word.confidence, word.box] for word in page.words]}
        with atomic.write(self._file(key)) as stream:
            stream.write(json.dumps(kept).encode())
        if next(_kept) % OFTEN == 0:
            self.prune()

    def holding(self, texts: Iterable[str]) -> list[Path]:
        """The files of pages whose whole text stands, on lines of its own, in one of ``texts``."""
        pages: dict[str, list[tuple[str, Path]]] = {}
        for file in Path(self._folder).glob("??/*.json") if self._folder else ():
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                page = str(json.loads(file.read_bytes())["text"])
                if page.strip():
                    pages.setdefault(page.partition("\n")[0], []).append((f"\n{page}\n", file))
        found = {
            file
            for text in texts
            for line in pages.keys() & set(text.split("\n"))
            for page, file in pages[line]
            if page in f"\n{text}\n"
        }
        return sorted(found)

    def prune(self) -> None:
        """Remove the oldest files beyond :data:`MOST` and :data:`LARGEST`."""
        found = []
        for file in Path(self._folder or ".").glob("??/*.json"):
            with contextlib.suppress(OSError):  # another process removed it
                status = file.stat()
                found.append((status.st_mtime, status.st_size, file))
        total = 0
        for number, (_, size, file) in enumerate(sorted(found, reverse=True), 1):
            total += size
            if number > MOST or total > LARGEST:
                file.unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        return Path(self._folder or ".") / key[:2] / f"{key}.json"
