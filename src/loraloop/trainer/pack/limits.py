"""What can be packed, and how much of it at once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from loraloop.trainer import estimate
from loraloop.trainer.choices import choose, isolating_attention, on_gpu
from loraloop.trainer.settings import Settings
from loraloop.trainer.sft import Sft

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from loraloop.protocols import Lora

INITIALISATIONS = ("default", "gaussian", "orthogonal")
MEMORY_SHARE = 0.8  # of what is free; the rest is for gradients in flight and the allocator's gaps


def obstacle(settings: Any, lora: Lora, model: PreTrainedModel) -> str | None:
    """Why a job cannot train in a pack to the result that it would have alone, or ``None`` if it can.

    Args:
        settings: The job's trainer.
        lora: The adapter's shape.
        model: The base, perhaps on the meta device.
    """
    if not isinstance(settings, Sft):
        return f"{type(settings).__name__} is another trainer than sft"
    found = [reason for reason, applies in _reasons(settings, lora, model) if applies]
    return found[0] if found else None


def _reasons(settings: Sft, lora: Lora, model: PreTrainedModel) -> list[tuple[str, bool]]:
    packing = isolating_attention(model) if settings.packing == "auto" else settings.packing
    return [
        ("lora.use_dora needs the norm of base and update together", lora.use_dora),
        ("lora.rank_pattern gives layers ranks of their own", bool(lora.rank_pattern)),
        ("lora.alpha_pattern gives layers scalings of their own", bool(lora.alpha_pattern)),
        (f"lora.bias={lora.bias} trains a part of the base", lora.bias != "none"),
        (f"lora.init={lora.init} changes the base", lora.init not in INITIALISATIONS),
        ("trainer.packing puts several rows into one sequence", packing),
        ("trainer.gradient_checkpointing=true would draw dropout twice", settings.gradient_checkpointing is True),
        ("the base drops out activations itself, one mask for all trials", _drops(model)),
        ("the base routes tokens to experts", _routes(model)),
        ("the base lies on several devices", len({value.device for value in model.parameters()}) > 1),
        ("several processes train together", int(os.environ.get("WORLD_SIZE", "1")) > 1),
    ]


def capacity(
    settings: Settings,
    loras: Sequence[Lora],
    model: PreTrainedModel,
    lengths: Sequence[int],
    *,
    quantization: str = "none",
    dtype: str = "float32",
) -> int:
    """How many trials fit into memory at once beside the base; at least 1.

    Args:
        settings: The trials' common settings.
        loras: Their adapters; the largest counts.
        model: The base; on the meta device, room is left for its weights.
        lengths: Tokens of each training row.
        quantization: Of the base's linear layers: ``none``, ``nf4`` or ``nf4-double``.
        dtype: Of its other weights.
    """
    choices = choose(settings, model, lengths)
    activations = estimate.activation_bytes(
        model, choices.micro_batch, max(lengths, default=1), bf16=choices.bf16, checkpointing=False
    )
    trained = max(lora.trainable_parameters(model) for lora in loras)
    awaited = estimate.weight_bytes(model, quantization, dtype) if model.device.type == "meta" else 0
    room = MEMORY_SHARE * (_free(model) - awaited)
    return max(1, int(room / (trained * estimate.ADAPTER_BYTES + activations)))


def _free(model: PreTrainedModel) -> int:
    """Bytes that can be had where the model trains."""
    import torch

    if on_gpu(model):
        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0]) + unused
    import psutil

    return int(psutil.virtual_memory().available)


def _drops(model: PreTrainedModel) -> bool:
    import torch

    config = model.config.get_text_config()
    inside = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return inside or bool(getattr(config, "attention_dropout", 0.0))


def _routes(model: PreTrainedModel) -> bool:
    experts = any("experts" in name.split(".") for name, _ in model.named_modules())
    return experts or bool(getattr(model.config, "output_router_logits", False))
