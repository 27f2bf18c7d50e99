"""What a process knows that trains together with others."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loraloop.core.progress import Progress

EVENTS, STOP = "events.jsonl", "stop"
"""Files of the shared folder: what the first process tells, and that all are asked to end."""


@dataclass(frozen=True, slots=True)
class Member:
    """What a process of several knows of itself.

    Attributes:
        rank: Its number, from 0.
        folder: Of the files that the processes share.
        parent: The process that was started by a person.
    """

    rank: int
    folder: Path
    parent: int

    id = link = None

    def event(self, **values: Any) -> None:
        """Tell the parent; the first process alone does."""
        if self.rank == 0:
            with (self.folder / EVENTS).open("a", encoding="utf8") as stream:
                stream.write(json.dumps(values) + "\n")

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Metrics for the run that the parent tracks."""
        self.event(metrics=dict(values), step=step)

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters for the run that the parent tracks."""
        self.event(params=dict(values))

    def evaluated(self, step: int, loss: float) -> None:
        """A validation loss, for the study that the parent reports to."""
        self.event(evaluation=loss, step=step)

    def wait(self) -> None:
        """Wait for the other processes."""
        from torch import distributed

        distributed.barrier()

    def stops(self) -> bool:
        """Whether the training is to end; all processes call it after the same step and get the same answer."""
        import torch
        from torch import distributed

        asked = (self.folder / STOP).exists() or os.getppid() == 1 or not _alive(self.parent)
        word = torch.tensor(int(asked and self.rank == 0), device="cuda" if gpus() else "cpu")
        distributed.broadcast(word, 0)
        return bool(word.item())


class RelayedProgress(Progress):
    """Tells the parent how far the work is, which shows it."""

    def __init__(self, member: Member) -> None:
        super().__init__("training", "step")
        self._member = member

    def __enter__(self) -> RelayedProgress:
        return self

    def update(self, done: int, facts: str | None = None) -> None:
        """So many steps are done."""
        self._member.event(done=done, total=self.total, facts=facts)


_member: Member | None = None


def member() -> Member | None:
    """What this process is among several; ``None`` in one that a person started."""
    return _member


def become(made: Member) -> None:
    """Be one of several processes from now on."""
    global _member
    _member = made


def gpus() -> int:
    """GPUs of this machine."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _alive(process: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(process))
