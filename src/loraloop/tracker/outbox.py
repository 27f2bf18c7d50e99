"""What a run still has to send: kept in memory, and in a file as soon as the backend fails, until it is sent."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

LIMITS = {"metric": 790, "param": 100, "tag": 100, "status": 1}
"""At most so many entries of a kind in one batch; MLflow takes 100 params, 100 tags and 1,000 entries in all."""

BATCH_BYTES = 900_000
"""At most so many bytes of JSON in one batch; an MLflow server takes 1 MB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing to log; ``timestamp`` in milliseconds since 1970."""

    kind: Literal["metric", "param", "tag", "status"]
    key: str
    value: float | str
    timestamp: int
    step: int = 0

    @property
    def size(self) -> int:
        """At most so many bytes of JSON in a request."""
        return 500 + (len(json.dumps(self.value)) if isinstance(self.value, str) else 0)

    def line(self) -> str:
        """The entry as one line of JSON."""
        return json.dumps(asdict(self)) + "\n"


class Outbox:
    """A queue in front of a backend that may fail.

    ``put`` only queues. ``flush`` sends everything in batches; what the backend did not take stays queued, is appended
    to ``file``, and is tried again at the next flush. The file is removed once everything in it has been sent.
    Both may be called from any thread.

    Args:
        send: Sends one batch, or raises. A batch may come twice when the backend failed in the middle of it.
        file: JSON Lines, one `Entry` each; not created as long as the backend answers.
        warn: Told, at each failure, where the entries are and why the backend failed.
    """

    def __init__(
        self, send: Callable[[Sequence[Entry]], None], file: Path, warn: Callable[[str, Exception], None]
    ) -> None:
        self.failing = False
        self._send = send
        self._file = file
        self._warn = warn
        self._pending: deque[Entry] = deque()
        self._filed = 0  # how many entries, from the oldest, are in the file already
        self._queue_lock = threading.Lock()
        self._flush_lock = threading.Lock()

    def put(self, entries: Iterable[Entry]) -> None:
        """Queue entries in their order."""
        with self._queue_lock:
            self._pending.extend(entries)

    def flush(self) -> bool:
        """Send what is queued; whether nothing is left. Never raises for an error of the backend."""
        with self._flush_lock:
            try:
                while batch := self._batch():
                    self._send(batch)
                    self._drop(len(batch))
            except Exception as error:
                self.failing = True
                self._keep(error)
                return False
            if self.failing:
                self.failing = False
                with contextlib.suppress(OSError):  # it may never have been written
                    self._file.unlink()
            return True

    def _batch(self) -> list[Entry]:
        batch: list[Entry] = []
        counts: Counter[str] = Counter()
        size = 0
        with self._queue_lock:
            for entry in self._pending:
                counts[entry.kind] += 1
                size += entry.size
                if counts[entry.kind] > LIMITS[entry.kind] or size > BATCH_BYTES:
                    break
                batch.append(entry)
        return batch

    def _drop(self, count: int) -> None:
        with self._queue_lock:
            for _ in range(count):
                self._pending.popleft()
        self._filed = max(0, self._filed - count)

    def _keep(self, error: Exception) -> None:
        with self._queue_lock:
            entries = list(self._pending)
        where = f"kept in {self._file}"
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with self._file.open("a", encoding="utf-8") as stream:
                stream.writelines(entry.line() for entry in entries[self._filed :])
                stream.flush()
                os.fsync(stream.fileno())
            self._filed = len(entries)
        except OSError as full:
            where = f"kept in memory only, because {self._file} cannot be written ({full})"
        self._warn(where, error)
