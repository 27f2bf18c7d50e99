"""Keys of clients: random, kept as hashes, each with the scopes that it opens."""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Collection
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError

from loraloop.core import atomic
from loraloop.core.hashing import sha256
from loraloop.errors import ConfigError

Scope = Literal["infer", "feedback", "review", "registry", "admin"]
SCOPES: tuple[str, ...] = get_args(Scope)
"""``infer`` asks models, ``feedback`` rates, ``review`` sees rated sessions on the page ``/review`` and decides on
corrections, ``registry`` sees models and metrics, ``admin`` does everything."""
PREFIX = "ll-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key as it is kept. A plain SHA-256 is enough for 256 random bits: there is nothing to guess."""

    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    created: str

    def opens(self, scopes: Collection[str]) -> bool:
        """Whether the key has one of ``scopes``."""
        return "admin" in self.scopes or any(scope in self.scopes for scope in scopes)


class Keys:
    """The keys in a file, read again when it changes, so that a revoked key ends at once.

    Args:
        file: JSON; it need not exist. One that exists, though without a key in it, means that keys are needed.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._keys: tuple[Key, ...] = ()
        self._seen = False

    def needed(self) -> bool:
        """Whether clients need a key: there is a file, or there was one since the start."""
        self._seen = self._seen or self._file.exists()
        return self._seen

    def all(self) -> tuple[Key, ...]:
        """Every key.

        Raises:
            ConfigError: The file is damaged.
        """
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            self._stamp, self._keys = None, ()
            return ()
        if self._stamp != (stat.st_mtime_ns, stat.st_ino):
            self._keys = self._read()
            self._stamp = (stat.st_mtime_ns, stat.st_ino)
        return self._keys

    def find(self, secret: str) -> Key | None:
        """The key with that text; every one is compared, in constant time."""
        digest = _digest(secret)
        found = None
        for key in self.all():
            if hmac.compare_digest(key.sha256, digest):
                found = key
        return found

    def add(self, name: str, scopes: Collection[str]) -> str:
        """Make a key and return its text, which is kept nowhere.

        Raises:
            ConfigError: The name is taken.
        """
        if any(key.name == name for key in self.all()):
            raise ConfigError(f"name={name} has a key already: revoke it (revoke={name}), or choose another name")
        secret = PREFIX + secrets.token_urlsafe(32)
        made = TypeAdapter(Key).validate_python(
            {"name": name, "sha256": _digest(secret), "scopes": tuple(scopes), "created": _now()}
        )
        self._write((*self.all(), made))
        return secret

    def revoke(self, name: str) -> None:
        """Take a key back.

        Raises:
            ConfigError: There is none of that name.
        """
        rest = tuple(key for key in self.all() if key.name != name)
        if len(rest) == len(self.all()):
            names = ", ".join(key.name for key in self.all()) or "none"
            raise ConfigError(f"revoke={name}: there is no such key; there are {names}")
        self._write(rest)

    def _read(self) -> tuple[Key, ...]:
        try:
            return TypeAdapter(tuple[Key, ...]).validate_json(self._file.read_bytes())
        except ValidationError as error:
            problem = error.errors(include_input=False)[0]["msg"]
            raise ConfigError(
                f"server.keys={self._file} is damaged ({problem}); restore it, or make new keys"
            ) from None

    def _write(self, keys: Collection[Key]) -> None:
        with atomic.write(self._file) as stream:
            stream.write(json.dumps([asdict(key) for key in keys], indent=2).encode() + b"\n")
        self._file.chmod(0o600)


def _digest(secret: str) -> str:
    return sha256(secret.encode())


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
