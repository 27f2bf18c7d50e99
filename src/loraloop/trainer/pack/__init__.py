"""Many adapters trained at once on one frozen base, each to the result that it would have had alone."""

from loraloop.trainer.pack.limits import capacity, obstacle
from loraloop.trainer.pack.loop import train
from loraloop.trainer.pack.packed_trial import PACKABLE_LORA, PACKABLE_TRAINER, PackedTrial

__all__ = ["PACKABLE_LORA", "PACKABLE_TRAINER", "PackedTrial", "capacity", "obstacle", "train"]
