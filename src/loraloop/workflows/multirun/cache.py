"""What the jobs of one multirun in one process have in common and make once: the rows, the base, its score."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from loraloop.lora import Lora
    from loraloop.model.causal import CausalLM
    from loraloop.records import Job, LoadedModel

T = TypeVar("T")

_sweep: Path | None = None
_kept: dict[str, tuple[str, Any]] = {}


def cached(job: Job, name: str, groups: Sequence[str], make: Callable[[], T]) -> T:
    """What ``make`` makes, or what it made for the last job of the same multirun that was configured alike.

    Args:
        job: A job on its own shares nothing.
        name: Of the thing; the latest one alone is kept.
        groups: The configuration that decides it.
        make: Makes it.
    """
    global _sweep
    if job.sweep is None:
        return make()
    if job.sweep != _sweep:
        _kept.clear()
        _sweep = job.sweep
    key = json.dumps({group: job.config.get(group) for group in groups}, sort_keys=True, default=str)
    if name not in _kept or _kept[name][0] != key:
        _kept.pop(name, None)  # never two bases in memory
        _kept[name] = (key, make())
    made: T = _kept[name][1]
    return made


@contextmanager
def base(job: Job, model: CausalLM, lora: Lora) -> Iterator[LoadedModel]:
    """The base to train on, for later jobs as it was before this one."""
    from loraloop.model import adapters

    loaded = cached(job, "model", ("model",), model.load)
    try:
        yield loaded
    finally:
        if lora.mutates_base or lora.bias != "none":
            _kept.pop("model", None)
        elif job.sweep is not None:
            adapters.detach(loaded.model)
