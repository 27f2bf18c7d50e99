"""The adapters in memory, and which of them is evicted for another one."""

from __future__ import annotations

import threading
from collections import OrderedDict

from loraloop.errors import BusyError
from loraloop.serve.engine.lora import LoraAdapter


class AdapterCache:
    """At most ``places`` adapters; evicts the least recently used one, never one that is answering.

    An adapter that was replaced or taken off while it answers keeps its place until the last of its answers has ended.
    """

    def __init__(self, places: int) -> None:
        self._places = places
        self._routed: OrderedDict[str, LoraAdapter] = OrderedDict()
        self._draining: list[LoraAdapter] = []
        self._lock = threading.Lock()
        self.evictions = 0

    def names(self) -> list[str]:
        """The names that answer, least recently used first."""
        with self._lock:
            return list(self._routed)

    def take(self, name: str) -> LoraAdapter | None:
        """The adapter, held until :meth:`give`; ``None`` if it is not here."""
        with self._lock:
            adapter = self._routed.get(name)
            if adapter is not None:
                adapter.answering += 1
                self._routed.move_to_end(name)
            return adapter

    def give(self, adapter: LoraAdapter) -> None:
        """Release an adapter that :meth:`take` returned."""
        with self._lock:
            adapter.answering -= 1
            self._draining = [other for other in self._draining if other.answering]

    def put(self, adapter: LoraAdapter) -> None:
        """Route an adapter's name to it; an earlier one of that name answers what it has begun, and is gone.

        Raises:
            BusyError: Every place is taken by one that is answering; nothing was changed.
        """
        with self._lock:
            idle, surplus = self._room(adapter.name)
            if surplus > len(idle):
                raise BusyError(
                    f"all {self._places} places for adapters (serve.max_adapters) are taken by ones that are "
                    "answering; ask again later"
                )
            for name in idle[:surplus]:
                del self._routed[name]
            self.evictions += surplus
            self._remove(adapter.name)
            self._routed[adapter.name] = adapter

    def has_room(self, name: str) -> bool:
        """Whether :meth:`put` would find a place for an adapter of this name now."""
        with self._lock:
            idle, surplus = self._room(name)
            return surplus <= len(idle)

    def _room(self, name: str) -> tuple[list[str], int]:
        """The adapters that could be evicted for one of this name, least recently used first, and how many must be."""
        idle = [other for other, adapter in self._routed.items() if not adapter.answering and other != name]
        earlier = self._routed.get(name)
        stays = earlier is not None and earlier.answering > 0
        others = len(self._routed) - (earlier is not None) + len(self._draining) + stays
        return idle, max(0, others + 1 - self._places)

    def remove(self, name: str) -> bool:
        """Take an adapter off; it answers what it has begun. Whether there was one."""
        with self._lock:
            return self._remove(name)

    def _remove(self, name: str) -> bool:
        earlier = self._routed.pop(name, None)
        if earlier is not None and earlier.answering:
            self._draining.append(earlier)
        return earlier is not None
