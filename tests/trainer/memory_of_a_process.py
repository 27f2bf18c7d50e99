"""A process that trains alone, then one pack twice, with and without room in memory, and prints what came of it.

The arguments are the trials of the pack, the bytes that it may add, and the folder for the adapters.
"""

import json
import logging
import resource
import sys
from pathlib import Path

import psutil

from conftest import Remembered, dataset, job, loaded, settings, weights
from loraloop.lora import Lora
from loraloop.model.causal import CausalLM
from loraloop.trainer.pack import PackedTrial, train
from loraloop.trainer.sft import Sft


def pack(count: int, folder: Path) -> list[PackedTrial]:
    """Trials of two ranks; each seed occurs twice, so that two trials draw from one random state."""
    plain = {"epochs": 1, "batch_size": 32, "accumulation": 1, "max_length": 128}
    return [
        PackedTrial(
            settings=settings(**plain, seed=index // 2),
            lora=Lora(r=4 + 4 * (index % 2), dropout=0.1, targets="all-linear"),
            run=Remembered(),
            output=folder / str(index),
        )
        for index in range(count)
    ]


class Heard(logging.Handler):
    """Keeps the messages that it is told."""

    def __init__(self, messages: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.messages = messages

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.messages.append(record.getMessage())


def alone(folder: Path) -> dict[str, int]:
    """The estimate of a run on the bundled base, and what it took."""
    model, trainer, data = CausalLM(name="bundled:tiny"), Sft(epochs=1, max_steps=2), dataset(32, 0)
    expected = trainer.estimate(model.skeleton(), Lora(), data)
    _, training = trainer.train(job(model.load(), Lora(), data, Remembered(), folder))
    return {"estimated": expected.memory_bytes, "measured": training.peak_memory_bytes}


def main() -> None:
    """Train, limit the memory, and train again."""
    count, room, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    single = alone(folder / "single")
    warnings: list[str] = []
    logging.getLogger("loraloop").addHandler(Heard(warnings))
    data = dataset(64, 0)
    few, many = pack(1, folder / "warm"), pack(count, folder / "limited")
    train(loaded(), few, data)  # what a first training allocates once
    used = psutil.Process().memory_info().data
    resource.setrlimit(resource.RLIMIT_DATA, (used + room, resource.RLIM_INFINITY))
    outcomes = train(loaded(), many, data)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    free = pack(count, folder / "free")
    train(loaded(), free, data)
    saved = [[weights(trial.output) for trial in each if (trial.output / "adapter").exists()] for each in (many, free)]
    differences = [
        float(max(abs(ours[name] - theirs[name]).max() for name in theirs))
        for ours, theirs in zip(*saved, strict=False)
    ]
    losses = [[trial.run.values("train/loss") for trial in each] for each in (many, free)]
    print(
        json.dumps(
            {
                **single,
                "outcomes": [str(outcome) if isinstance(outcome, Exception) else "trained" for outcome in outcomes],
                "warnings": warnings,
                "differences": differences,
                "losses": losses,
            }
        )
    )


if __name__ == "__main__":
    main()
