"""A training whose processes hold a share of the weights each: FSDP2, by accelerate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loraloop.errors import ConfigError, TrainingError
from loraloop.trainer.choices import Choices
from loraloop.trainer.member import gpus

if TYPE_CHECKING:
    from peft import PeftModel

    from loraloop.protocols import Lora
    from loraloop.records import Base
    from loraloop.trainer.settings import Settings


def arguments(settings: Settings, choices: Choices) -> dict[str, Any]:
    """Transformers' arguments; nothing where each process holds the whole model."""
    if settings.sharding == "none":
        return {}
    config = {"version": 2, "activation_checkpointing": choices.gradient_checkpointing}
    return {"fsdp": True, "fsdp_config": config, "gradient_checkpointing": False}


def on_cpus(settings: Settings) -> None:
    """Let accelerate shard on CPUs too, which it does for other devices only; called before it makes its state.

    torch's ``fully_shard`` works over gloo. That is how this is tested on a machine without GPUs.
    """
    if settings.sharding != "none" and not gpus():
        from accelerate.state import PartialState
        from accelerate.utils import DistributedType

        PartialState().distributed_type = DistributedType.MULTI_GPU


def require(settings: Settings, lora: Lora, base: Base) -> None:
    """Refuse what was not shown to train right with shared out weights.

    Raises:
        ConfigError: A quantised base, or an adapter whose start changes the base's weights.
    """
    if settings.sharding == "none":
        return
    if base.quantization != "none":
        raise ConfigError(
            f"trainer.sharding={settings.sharding} and model.quantization={base.quantization} do not go together: "
            "4-bit weights are not shared out; set trainer.sharding=none, or model.quantization=none"
        )
    if lora.mutates_base:
        raise ConfigError(
            f"trainer.sharding={settings.sharding} needs an adapter that leaves the base as it is, and lora.init="
            f"{lora.init} does not: set lora.init=default, or trainer.sharding=none"
        )


def trained(settings: Settings, model: PeftModel) -> Mapping[str, Any] | None:
    """The whole trained weights of a sharded model; ``None`` of another one, which holds them itself.

    All processes call it.

    Raises:
        TrainingError: The model was to be sharded, and is not.
    """
    if settings.sharding == "none":
        return None
    from torch.distributed.tensor import DTensor

    whole = {}
    for name, value in model.named_parameters():
        if value.requires_grad:
            share = value.detach()
            if not isinstance(share, DTensor):
                raise TrainingError(
                    f"trained weights are not sharded, such as {name}: accelerate did not follow "
                    f"trainer.sharding={settings.sharding}; set trainer.sharding=none"
                )
            whole[name] = share.full_tensor()
    return whole
