"""Stage ``pretrain``: make the bundled tiny model again from its recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from loraloop.core import console
from loraloop.core.progress import Progress
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from loraloop.model.pretraining import Pretraining
    from loraloop.records import Job


def pretrain(job: Job, pretraining: Pretraining) -> None:
    """Pre-train into ``pretraining.output``, which must not exist yet."""
    if pretraining.output.exists():
        raise ConfigError(f"pretraining.output={pretraining.output} exists already: name a new folder or remove it")
    with Progress("pre-training", "step", pretraining.total_steps, keep=True) as progress:
        folder = pretraining.run(lambda step, loss: progress.update(step, f"loss {loss:.3f}"))
    console.facts("pre-trained", {"model": str(folder), "use it with": f"loraloop model=tiny model.name={folder}"})
