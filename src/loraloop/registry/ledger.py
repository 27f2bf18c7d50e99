"""The append-only ledger of which version served when: one JSON line per event, chained by SHA-256."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from loraloop.core import durations
from loraloop.core.hashing import sha256
from loraloop.core.locks import required_lock
from loraloop.errors import RegistryError

LOCK_SECONDS = 60
START = "0" * 64
"""``previous`` of the first entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One event.

    Attributes:
        time: UTC in ISO 8601 with microseconds; never earlier than the entry before.
        alias: The alias that pointed at ``version`` from ``time`` on; ``None`` for events that move no alias.
        previous: ``sha256`` of the entry before.
        sha256: Hash of everything above in canonical JSON.
    """

    time: str
    event: str
    version: int | None
    alias: str | None
    reason: str
    numbers: Mapping[str, Any]
    previous: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Ledger:
    """A ledger in one file.

    Writers of several processes take turns, and an entry is on disk before ``append`` returns.
    """

    path: Path

    def append(
        self,
        event: str,
        version: int | None,
        reason: str,
        alias: str | None = None,
        numbers: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Write one entry.

        Raises:
            RegistryError: The file cannot be written or its last entry is damaged; nothing was added.
        """
        facts = {"event": event, "version": version, "alias": alias, "reason": reason, "numbers": _plain(numbers or {})}
        with self._locked():
            self._quarantine()
            return self._append(facts)

    def entries(self) -> list[Entry]:
        """All entries, oldest first; an entry torn by a crash is left for the next ``append`` to set aside.

        Raises:
            RegistryError: A line is not an entry.
        """
        whole, newline, _ = self._read().rpartition(b"\n")
        lines = whole.split(b"\n") if newline else []
        return [self._parse(line, number) for number, line in enumerate(lines, start=1)]

    def verify(self) -> int:
        """Check every hash and the chain between them; the number of entries that hold.

        Raises:
            RegistryError: An entry was altered, removed or put in after it was written; names the first such line.
        """
        entries, previous = self.entries(), START
        for number, entry in enumerate(entries, start=1):
            if entry.previous != previous or entry.sha256 != _digest(entry):
                raise RegistryError(
                    f"{self.path} line {number} ({entry.time}, {entry.event}) does not continue the entry before: "
                    "the ledger was altered after it was written; restore it from a copy"
                )
            previous = entry.sha256
        return len(entries)

    def aliases(self) -> dict[str, int]:
        """The version that each alias points at by now."""
        last = {entry.alias: entry.version for entry in self.entries() if entry.alias is not None}
        return {alias: version for alias, version in last.items() if version is not None}

    def _append(self, facts: dict[str, Any]) -> Entry:
        last = self._last()
        now = datetime.now(UTC).isoformat(timespec="microseconds")
        entry = Entry(
            time=max(now, last.time) if last else now, previous=last.sha256 if last else START, sha256="", **facts
        )
        entry = Entry(**{**asdict(entry), "sha256": _digest(entry)})
        try:
            self._write(_canonical(asdict(entry)) + b"\n")
        except OSError as error:
            raise RegistryError(f"cannot write {self.path} ({error.strerror}); free some space and repeat") from error
        return entry

    def _write(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        size = os.fstat(descriptor).st_size
        try:
            written = os.write(descriptor, line)
            while written < len(line):
                written += os.write(descriptor, line[written:])
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, size)
            raise
        finally:
            os.close(descriptor)

    def _quarantine(self) -> None:
        """Move what a crash left after the last newline to ``<name>.torn`` and say so in the ledger."""
        data = self._read()
        torn = data[data.rfind(b"\n") + 1 :]
        if not torn:
            return
        aside = self.path.with_name(f"{self.path.name}.torn")
        with aside.open("ab") as stream:
            stream.write(torn + b"\n")
            stream.flush()
            os.fsync(stream.fileno())
        os.truncate(self.path, len(data) - len(torn))
        reason = f"{len(torn)} bytes of an entry torn by a crash are in {aside.name}"
        self._append({"event": "recovered", "version": None, "alias": None, "reason": reason, "numbers": {}})

    def _last(self) -> Entry | None:
        lines = self._read().splitlines()
        return self._parse(lines[-1], len(lines)) if lines else None

    def _read(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""

    def _parse(self, line: bytes, number: int) -> Entry:
        try:
            return Entry(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise RegistryError(
                f"{self.path} line {number} is not a ledger entry; restore the file from a copy, or rename it to keep "
                "it aside: the next event begins a new one"
            ) from error

    def _locked(self) -> AbstractContextManager[None]:
        return required_lock(self.path.with_name(f".{self.path.name}.lock"), LOCK_SECONDS, RegistryError)


def moment(at: str) -> datetime:
    """The ISO 8601 time ``at``, which is UTC where it names no zone.

    Raises:
        RegistryError: It is none.
    """
    try:
        return durations.moment(at)
    except ValueError as error:
        raise RegistryError(f"at={at!r} is not an ISO 8601 time; write 2026-01-31T18:00:00+00:00") from error


def _digest(entry: Entry) -> str:
    facts = asdict(entry)
    del facts["sha256"]
    return sha256(_canonical(facts))


def _canonical(facts: Mapping[str, Any]) -> bytes:
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _plain(value: Any) -> Any:
    """``value`` in strict JSON: numbers that JSON lacks (NaN, infinity) and unknown types become text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    return value if value is None or isinstance(value, bool | int | str) else str(value)
