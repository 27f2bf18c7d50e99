"""What every trainer can be told, whatever its loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from loraloop.core.part import part
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from loraloop.protocols import Lora

LossOn = Literal["assistant", "last", "all"]
Auto = bool | Literal["auto"]
Count = Annotated[int, Field(ge=1)]
EPOCHS = 3
MIN_STEPS = 100
"""Steps that ``epochs=auto`` takes at least: 60 tickets in 5 queues need about as many, see docs/training.md."""
WITHOUT_EFFECT = frozenset(
    {"eval_steps", "eval_growth", "save_steps", "log_steps", "keep_checkpoints", "cost_per_hour"}
)


@part
class Settings:
    """The settings that trainers share.

    Attributes:
        epochs: Passes over the training rows; ``auto`` is 3, or as many as make 100 steps where the rows are few, and 1
            of ``trainer=grpo``.
        batch_size: Rows per device and forward pass where memory is scarce.
        accumulation: Forward passes per optimizer step; ``batch_size * accumulation`` rows are one step.
        micro_batch: Rows per forward pass: ``auto`` takes fewer, larger passes with the same gradient on a CPU.
        learning_rate: Peak learning rate of AdamW.
        warmup: Share of the steps over which the learning rate rises from 0.
        schedule: How the learning rate falls after the warm-up.
        weight_decay: AdamW's decoupled weight decay.
        max_grad_norm: Gradients are scaled down to this norm; 0 leaves them.
        loss_on: What is learned: every turn of the ``assistant``, its ``last`` one, or ``all`` tokens, the user's too.
        max_length: Tokens per row; an answer is never cut.
        too_long: What becomes of longer rows: ``drop`` leaves them out, ``oldest_turns`` leaves out as many of a
            conversation's oldest turns as needed, those of the system excepted.
        packing: Several rows in one sequence of ``max_length``, which then counts as a row of a step: other batches,
            fewer steps. ``auto`` is false, because it may not change what is learned.
        bf16: Autocast to bfloat16; ``auto`` where it is faster.
        gradient_checkpointing: Recompute activations in the backward pass; ``auto``: on a GPU.
        max_steps: Stop after this many optimizer steps; null: after the epochs.
        eval_steps: Steps between evaluations of the validation loss, or below 1 the share of all steps; null: after
            every epoch.
        eval_growth: After a first validation, each next one comes after so many times as many steps, and one at the
            end; 1: they come evenly. A pruner that halves looks at each doubling, so that 2 saves the others.
        save_steps: Steps between checkpoints; null: after every epoch.
        log_steps: Steps between logged metrics.
        keep_checkpoints: Newest checkpoints that are kept.
        cost_per_hour: Price of an hour of this machine, in your currency.
        seed: Of the adapter's initialisation, the row order and dropout.
        processes: Processes that train together, each on a GPU of its own where there are GPUs; a step takes
            ``batch_size * accumulation`` rows of each.
        sharding: What each of several processes holds: ``none``, the whole model; ``fsdp2``, a share of every layer's
            weights (torch's ``fully_shard``, by accelerate), so that a base may be larger than one GPU's memory.
    """

    epochs: Count | Literal["auto"] = "auto"
    batch_size: Count = 4
    accumulation: Count = 4
    micro_batch: Count | Literal["auto"] = "auto"
    learning_rate: Annotated[float, Field(gt=0, le=1)] = 2e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(ge=0)] = 1.0
    loss_on: LossOn = "assistant"
    max_length: Annotated[int, Field(ge=8)] = 512
    too_long: Literal["drop", "oldest_turns"] = "drop"
    packing: Auto = "auto"
    bf16: Auto = "auto"
    gradient_checkpointing: Auto = "auto"
    max_steps: Count | None = None
    eval_steps: Count | Annotated[float, Field(gt=0, lt=1)] | None = None
    eval_growth: Count = 1
    save_steps: Count | None = None
    log_steps: Count = 10
    keep_checkpoints: Count = 2
    cost_per_hour: Annotated[float, Field(ge=0)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    processes: Count = 1
    sharding: Literal["none", "fsdp2"] = "none"

    together: ClassVar[bool] = False
    """Whether the method trains in several processes."""

    @model_validator(mode="after")
    def _trains_together(self) -> Settings:
        if self.processes > 1 and not self.together:
            raise ValueError(
                f"processes={self.processes}: {type(self).__name__} trains in one process, and of the trainers "
                "trainer=sft alone trains in several; set trainer.processes=1"
            )
        return self

    @model_validator(mode="after")
    def _shares_with_others(self) -> Settings:
        if self.sharding != "none" and self.processes == 1:
            raise ValueError(
                f"sharding={self.sharding} shares weights out over several processes, and processes is 1: "
                "set trainer.processes=N, or trainer.sharding=none"
            )
        return self

    @model_validator(mode="after")
    def _micro_batch_divides(self) -> Settings:
        if self.micro_batch != "auto" and self.rows_per_step % self.micro_batch:
            raise ValueError(
                f"micro_batch={self.micro_batch} must divide batch_size * accumulation = {self.rows_per_step}: "
                "choose one of its divisors, or auto"
            )
        return self

    @property
    def rows_per_step(self) -> int:
        """Rows per device that one optimizer step averages over."""
        return self.batch_size * self.accumulation

    @property
    def repeats(self) -> int:
        """How often an epoch takes each row."""
        return 1

    def sequences(self, lengths: Sequence[int]) -> int:
        """What an epoch goes through: rows of these lengths in tokens, or with packing the sequences they fill."""
        rows = len(lengths) if self.packing is not True else math.ceil(sum(lengths) / self.max_length)
        return rows * self.repeats

    def passes(self, sequences: int) -> int:
        """Epochs over so many sequences; an answer to ``epochs=auto``."""
        if self.epochs != "auto":
            return self.epochs
        return max(EPOCHS, math.ceil(MIN_STEPS / max(1, self.steps_per_pass(sequences))))

    def steps_per_pass(self, sequences: int) -> int:
        """Optimizer steps of one pass over so many sequences."""
        return math.ceil(sequences / (self.rows_per_step * self.processes))

    def steps(self, sequences: int) -> int:
        """Optimizer steps over so many sequences; ``max_steps`` only ever shortens a run."""
        whole = self.passes(sequences) * self.steps_per_pass(sequences)
        return min(self.max_steps or whole, whole)

    def validates(self, step: int, steps: int, steps_per_epoch: int) -> bool:
        """Whether the validation rows are scored after a step of so many, as transformers' Trainer counts a share."""
        every = self.eval_steps or steps_per_epoch
        look = every if isinstance(every, int) else math.ceil(steps * every)
        if self.eval_growth == 1:
            return step % look == 0 or step == steps
        while look < step:
            look *= self.eval_growth
        return step in (look, steps)

    def check_lora(self, lora: Lora) -> None:
        """Every adapter can be trained, unless a trainer says otherwise."""

    def check_model(self, config: Any) -> None:
        """Hold these settings against a base model's configuration (``model.config``).

        Raises:
            ConfigError: ``max_length`` is beyond the model's positions.
        """
        positions = getattr(config, "max_position_embeddings", None)
        if positions is not None and self.max_length > positions:
            raise ConfigError(
                f"trainer.max_length={self.max_length} is beyond the model's {positions} positions: "
                f"set trainer.max_length={positions} or less"
            )

    def decisive(self) -> Mapping[str, Any]:
        """The settings that decide the trained weights; a resumed run must have the same ones."""
        names = (field.name for field in fields(self))
        return {name: getattr(self, name) for name in names if name not in WITHOUT_EFFECT}
