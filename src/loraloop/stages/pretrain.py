"""Stage ``pretrain``: make the bundled tiny model again from its recipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from loraloop.model.pretraining import Pretraining
    from loraloop.records import Job


def pretrain(job: Job, pretraining: Pretraining) -> None:
    """Pre-train into ``pretraining.output``, which must not exist yet."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    if pretraining.output.exists():
        raise ConfigError(f"pretraining.output={pretraining.output} exists already: name a new folder or remove it")
    columns = (
        TextColumn("pre-training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    with Progress(*columns, TimeRemainingColumn(), console=Console(file=sys.stderr)) as bar:
        task = bar.add_task("pre-training", total=pretraining.steps, loss=float("nan"))
        folder = pretraining.run(lambda step, loss: bar.update(task, completed=step, loss=loss))
    console.facts("pre-trained", {"model": str(folder), "use it with": f"loraloop model=tiny model.name={folder}"})
