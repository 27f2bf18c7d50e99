"""Generation in this process, on the base that the model group names."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from loraloop.core.part import part

if TYPE_CHECKING:
    from loraloop.records import LoadedModel
    from loraloop.serve.engine.engine import Engine, Resolve

Count = Annotated[int, Field(ge=1)]


@part
class LocalBackend:
    """One thread generates with the base and its adapters, several answers at a time.

    Attributes:
        max_batch: Answers generated together; the key-value cache grows to this many times ``max_length`` tokens.
        max_queue: Requests that wait beside them; one more is refused.
        max_length: Most tokens of prompt and answer together; null means the model's positions.
        max_adapters: Adapters in memory; the least recently used one makes room.
        max_rank: Largest rank of an adapter.
        deadline_seconds: After this long an answer ends as it is, and a request still waiting is refused.
        prefix_cache_mb: Most mebibytes of keys and values that are kept of ended answers, so that a prompt that goes on
            from one is read from there on; 0 keeps none.
    """

    max_batch: Count = 8
    max_queue: Annotated[int, Field(ge=0)] = 64
    max_length: Count | None = 2048
    max_adapters: Count = 8
    max_rank: Count = 64
    deadline_seconds: Annotated[float, Field(gt=0)] = 120.0
    prefix_cache_mb: Annotated[int, Field(ge=0)] = 256

    def attach(self, loaded: LoadedModel, resolve: Resolve | None = None) -> Engine:
        """The backend on a base in memory; nobody else may run the base until it is closed.

        Args:
            loaded: The base.
            resolve: Fetches a version that is asked for and not in memory; without it only loaded ones answer.
        """
        from loraloop.serve.engine.engine import Engine, EngineLimits

        return Engine(EngineLimits(**asdict(self)), loaded, resolve)
