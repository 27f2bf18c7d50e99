"""What can be packed, and how much of it at once."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from loraloop.records import Encoded
from loraloop.trainer import dry_run, estimate, memory
from loraloop.trainer.choices import Choices, choose, on_gpu
from loraloop.trainer.pack import adapter
from loraloop.trainer.pack.batch import Batch, sums
from loraloop.trainer.pack.dropout_masks import DropoutMasks
from loraloop.trainer.pack.stack import AdapterStack
from loraloop.trainer.settings import Settings
from loraloop.trainer.sft import Sft

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from loraloop.protocols import Lora

INITIALISATIONS = ("default", "gaussian", "orthogonal")
log = logging.getLogger(__name__)
MEMORY_SHARE = 0.8  # of what is free; the rest is for what others take meanwhile
MOMENTS = 2  # that AdamW keeps of each weight


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
    return [
        ("lora.use_dora needs the norm of base and update together", lora.use_dora),
        ("lora.rank_pattern gives layers ranks of their own", bool(lora.rank_pattern)),
        ("lora.alpha_pattern gives layers scalings of their own", bool(lora.alpha_pattern)),
        (f"lora.bias={lora.bias} trains a part of the base", lora.bias != "none"),
        (f"lora.init={lora.init} changes the base", lora.init not in INITIALISATIONS),
        ("trainer.packing puts several rows into one sequence", settings.packing is True),
        ("trainer.gradient_checkpointing=true would draw dropout twice", settings.gradient_checkpointing is True),
        ("the base drops out activations itself, one mask for all trials", _drops(model)),
        ("the base routes tokens to experts", _routes(model)),
        ("the base lies on several devices", len({value.device for value in model.parameters()}) > 1),
        ("trainer.processes is above 1, and a pack trains in one process", settings.processes > 1),
        ("several processes train together", int(os.environ.get("WORLD_SIZE", "1")) > 1),
    ]


def capacity(
    settings: Settings,
    loras: Sequence[Lora],
    model: PreTrainedModel,
    rows: Sequence[Encoded],
    *,
    quantization: str = "none",
    dtype: str = "float32",
) -> int:
    """How many trials fit into memory at once beside the base; at least 1.

    Args:
        settings: The trials' common settings.
        loras: Their adapters; the largest counts.
        model: The base; on the meta device, room is left for its weights.
        rows: The training rows.
        quantization: Of the base's linear layers: ``none``, ``nf4`` or ``nf4-double``.
        dtype: Of its other weights.
    """
    choices = choose(settings, model, [len(row.input_ids) for row in rows])
    largest = max(loras, key=lambda lora: (lora.trainable_parameters(model), lora.dropout))
    awaited = estimate.weight_bytes(model, quantization, dtype) if model.device.type == "meta" else 0
    room = MEMORY_SHARE * (memory.free(on_gpu(model)) - awaited)
    try:
        size = trial_bytes(largest, model, rows, choices, quantization != "none", dtype)
    except Exception as error:  # each architecture refuses a run without values in another way
        log.warning("The memory of a packed trial is estimated by a formula: %s", error)
        shape = estimate.Rows.of(rows).largest(choices.micro_batch)
        kept = estimate.formula_bytes(model, shape, choices)
        size = kept + estimate.ADAPTER_BYTES * largest.trainable_parameters(model)
    return max(1, int(room / size))


def trial_bytes(
    lora: Lora, model: PreTrainedModel, rows: Sequence[Encoded], choices: Choices, quantized: bool, dtype: str
) -> int:
    """Bytes that one more trial adds to a pack, from a pass over its longest rows without storage."""
    import torch

    device = "cuda" if on_gpu(model) else "cpu"
    shapes = dry_run.shapes(model, dtype)
    with torch.device("meta"):
        start = adapter.initial(shapes, lora, seed=0)
    shapes.requires_grad_(False)
    longest = sorted(rows, key=lambda row: len(row.input_ids))[-choices.micro_batch :]
    batch = Batch.collate([longest], 0, torch.device("cpu"))
    with dry_run.counted(shapes, device) as peak:
        before = peak.now
        flat = torch.zeros(start.flat.shape, dtype=torch.bfloat16 if quantized else start.flat.dtype, device=device)
        masks = DropoutMasks([(0, lora.dropout, 0)], torch.device(device))
        stack = AdapterStack([replace(start, flat=flat)], masks)
        tensors = batch.tensors().items()
        empty: dict[str, Any] = {
            name: torch.empty(value.shape, dtype=value.dtype, device=device) for name, value in tensors
        }
        masks.begin(len(longest), batch.ids.shape[1], batch.lengths)
        with stack.attached(shapes), torch.autocast(device, torch.bfloat16, enabled=choices.bf16):
            said = sums(shapes, replace(batch, **empty))
        stack.backward(said[0].sum())
        live = peak.most - before + MOMENTS * flat.nbytes
    return live if device == "cuda" else round(memory.HOLES * live)


def _drops(model: PreTrainedModel) -> bool:
    import torch

    config = model.config.get_text_config()
    inside = any(isinstance(module, torch.nn.Dropout) and module.p > 0 for module in model.modules())
    return inside or bool(getattr(config, "attention_dropout", 0.0))


def _routes(model: PreTrainedModel) -> bool:
    experts = any("experts" in name.split(".") for name, _ in model.named_modules())
    return experts or bool(getattr(model.config, "output_router_logits", False))
