"""One trial of a pack, and what trials of one pack may differ in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.errors import ConfigError
from loraloop.protocols import EvaluationCallback, Run
from loraloop.trainer.sft import Sft

if TYPE_CHECKING:
    from loraloop.protocols import Lora

PACKABLE_LORA = frozenset({"r", "alpha", "alpha_over_r", "dropout", "use_rslora"})
PACKABLE_TRAINER = frozenset({"learning_rate", "warmup", "weight_decay", "seed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedTrial:
    """One trial of a pack.

    Attributes:
        settings: The trainer's settings; they differ from those of other trials in ``PACKABLE_TRAINER`` alone.
        lora: The adapter's shape; it differs from those of other trials in ``PACKABLE_LORA`` alone.
        run: Where its metrics go, under the keys and at the steps of :meth:`Sft.train`.
        output: Folder for ``adapter/``.
        on_evaluation: Called after every validation; raises PrunedError to end this trial's training.
    """

    settings: Sft
    lora: Lora
    run: Run
    output: Path
    on_evaluation: EvaluationCallback | None = None


def require_alike(trials: Sequence[PackedTrial]) -> None:
    """Hold the trials' settings against those of the first.

    Raises:
        ConfigError: A field differs that decides how the whole pack trains.
    """
    first = _shared(trials[0])
    problems = [
        f"{key} is {value} for one trial of the pack and {first[key]} for another: train them apart"
        for trial in trials[1:]
        for key, value in _shared(trial).items()
        if value != first[key]
    ]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))


def _shared(trial: PackedTrial) -> dict[str, Any]:
    trainer = {f"trainer.{key}": value for key, value in asdict(trial.settings).items() if key not in PACKABLE_TRAINER}
    lora = {f"lora.{key}": value for key, value in vars(trial.lora).items() if key not in PACKABLE_LORA}
    return trainer | lora
