"""What a run still has to send: kept in memory, and in a file as soon as the backend fails, until it is sent."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from loraloop.core import atomic

LIMITS = {"metric": 790, "param": 100, "tag": 100, "status": 1}
"""At most so many entries of a kind in one batch; MLflow takes 100 params, 100 tags and 1,000 entries in all."""

BATCH_BYTES = 900_000
"""At most so many bytes of JSON in one batch; an MLflow server takes 1 MB."""

_log = logging.getLogger(__name__)


def now(since: int = 0) -> int:
    """Milliseconds since 1970, and no fewer than ``since``: another machine, whose clock differs, may have begun a run.

    MLflow takes the newest of the metrics of a step for its value.
    """
    return max(time.time_ns() // 1_000_000, since)


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


def _parsed(line: str) -> Entry | None:
    try:
        return Entry(**json.loads(line))
    except (ValueError, TypeError):
        return None


class Outbox:
    """A queue in front of a backend that may fail.

    ``put`` only queues. ``flush`` sends everything in batches; what the backend did not take stays queued, is appended
    to ``file``, and is tried again at the next flush. The file is removed once everything in it has been sent.
    An entry that the backend refuses for good is dropped with a warning, and the rest goes on. Both may be called from
    any thread.

    Args:
        send: Sends one batch, or raises. A batch may come twice when the backend failed in the middle of it.
        file: JSON Lines, one `Entry` each; not created as long as the backend answers.
        warn: Told, at each failure, where the entries are and why the backend failed.
        refuses: Whether an error that ``send`` raised would come again however often it is tried.
    """

    def __init__(
        self,
        send: Callable[[Sequence[Entry]], None],
        file: Path,
        warn: Callable[[str, Exception], None],
        refuses: Callable[[Exception], bool] = lambda error: False,
    ) -> None:
        self.failing = False
        self._send = send
        self._file = file
        self._warn = warn
        self._refuses = refuses
        self._refused: set[tuple[str, str]] = set()  # a metric that is refused at every step is warned of once
        self._pending: deque[Entry] = deque()
        self._filed = 0  # how many entries, from the oldest, are in the file already
        self._queue_lock = threading.Lock()
        self._flush_lock = threading.Lock()

    def put(self, entries: Iterable[Entry]) -> None:
        """Queue entries in their order."""
        with self._queue_lock:
            self._pending.extend(entries)

    def load(self, without: str | None = None) -> list[Entry]:
        """Queue what an earlier process left in the file, and return it; a line that it wrote in part is left out.

        Args:
            without: A kind of entry that is dropped.
        """
        with contextlib.suppress(FileNotFoundError):
            lines = self._file.read_text(encoding="utf-8", errors="replace").splitlines()
            entries = [entry for entry in map(_parsed, lines) if entry is not None and entry.kind != without]
            if len(entries) < len(lines):  # or the next line would be appended to half a line
                with atomic.write(self._file) as stream:
                    stream.writelines(entry.line().encode() for entry in entries)
            self.put(entries)
            self._filed = len(entries)
            self.failing = True  # until all is sent, and the file is removed
            return entries
        return []

    def flush(self) -> bool:
        """Send what is queued; whether nothing is left. Never raises for an error of the backend."""
        with self._flush_lock:
            try:
                while batch := self._batch():
                    self._deliver(batch)
            except Exception as error:
                self.failing = True
                self._keep(error)
                return False
            if self.failing:
                self.failing = False
                with contextlib.suppress(OSError):  # it may never have been written
                    self._file.unlink()
            return True

    def _deliver(self, batch: Sequence[Entry]) -> None:
        """Send the oldest entries; of a batch that is refused, find by halving the entries that are, and drop them."""
        try:
            self._send(batch)
        except Exception as error:
            if not self._refuses(error):
                raise
            if len(batch) > 1:
                middle = len(batch) // 2
                self._deliver(batch[:middle])
                self._deliver(batch[middle:])
                return
            self._warn_refused(batch[0], error)
        self._drop(len(batch))

    def _warn_refused(self, entry: Entry, error: Exception) -> None:
        if (entry.kind, entry.key) not in self._refused:
            self._refused.add((entry.kind, entry.key))
            _log.warning("The %s %s was refused and is not logged; the rest is. %s", entry.kind, entry.key, error)

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
