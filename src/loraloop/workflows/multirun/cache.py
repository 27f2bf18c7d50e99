"""What the jobs of one multirun in one process have in common and make once: rows, base, the base's score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Cache:
    """Keeps the latest value of each name; whoever runs the jobs makes one for each multirun."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, Any]] = {}

    def get(self, name: str, key: str, make: Callable[[], T]) -> T:
        """What ``make`` makes, or what it made for the last job that asked for ``name`` with an equal ``key``."""
        if name not in self._kept or self._kept[name][0] != key:
            self._kept.pop(name, None)  # never two bases in memory
            self._kept[name] = (key, make())
        made: T = self._kept[name][1]
        return made

    def drop(self, name: str) -> None:
        """Forget the value of ``name``."""
        self._kept.pop(name, None)
