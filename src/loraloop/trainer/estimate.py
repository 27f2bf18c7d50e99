"""What a run will take, from shapes and row lengths, before it starts (promise T8)."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from loraloop.records import Estimate
from loraloop.trainer.choices import Choices, on_gpu
from loraloop.trainer.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Bytes per weight: 4 bits, and per 64 weights an fp32 constant, or an 8-bit one with an fp32 per 256 of those
# (QLoRA, arXiv 2305.14314, section 3).
NF4_BYTES = {"none": 0.0, "nf4": 0.5 + 4 / 64, "nf4-double": 0.5 + 1 / 64 + 4 / (64 * 256)}
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAPTER_BYTES = 16  # per trained parameter in fp32: the weight, its gradient and AdamW's two moments
LAYER_BYTES = 34  # of activations per token and hidden unit of a layer at 16 bits (arXiv 2205.05198, eq. 2)
LOGIT_BYTES = 8  # per token and vocabulary entry: fp32 logits and their gradient
PROBE_SECONDS = 0.2
EFFICIENCY = 0.4  # of the product's speed in training: measured 0.4 (hidden 128), 0.5 (256) in fp32, 0.2 in bf16 (256)


def estimate(
    settings: Settings,
    choices: Choices,
    model: PreTrainedModel,
    trainable: int,
    lengths: Sequence[int],
    *,
    quantization: str = "none",
    dtype: str = "float32",
) -> Estimate:
    """Steps, tokens, memory and time of a run.

    Args:
        settings: The trainer's settings.
        choices: How the run is carried out.
        model: The base, perhaps on the meta device: only shapes are read.
        trainable: Parameters of the adapter.
        lengths: Tokens of each training row.
        quantization: Of the linear layers: ``none``, ``nf4`` or ``nf4-double``.
        dtype: Of the other weights.

    Returns:
        ``tokens`` without padding; ``memory_bytes`` of the GPU, or of this process in RAM; ``seconds`` without
        evaluation, from the best speed of this machine in a matrix product of the model's size: on an idle machine
        right within a factor of about two.
    """
    steps = settings.epochs * math.ceil(len(lengths) / settings.rows_per_step)
    share = min(1.0, settings.max_steps / steps) if settings.max_steps and steps else 1.0
    tokens = round(sum(lengths) * settings.epochs * share)
    total = parameters(model)
    activations = activation_bytes(
        model,
        choices.micro_batch,
        max(lengths, default=1),
        bf16=choices.bf16,
        checkpointing=choices.gradient_checkpointing,
    )
    added = trainable * ADAPTER_BYTES + activations
    return Estimate(
        trainable_parameters=trainable,
        total_parameters=total + trainable,
        steps=round(steps * share),
        tokens=tokens,
        memory_bytes=added + _base_bytes(model, weight_bytes(model, quantization, dtype)),
        seconds=_operations(total, trainable, tokens, choices) / _speed(choices, model, lengths),
    )


def parameters(model: PreTrainedModel) -> int:
    """Parameters of a model, counting the weights that bitsandbytes packs two in a byte."""
    return sum(_quantised(model)) + sum(value.numel() for value in model.parameters() if value.dtype.is_floating_point)


def weight_bytes(model: PreTrainedModel, quantization: str, dtype: str) -> int:
    """Bytes of a model's weights under ``quantization`` of its linear layers, the rest in ``dtype``."""
    total = parameters(model)
    linear = 0 if quantization == "none" else _linear(model)
    return round(linear * NF4_BYTES[quantization] + (total - linear) * DTYPE_BYTES[dtype])


def activation_bytes(model: PreTrainedModel, rows: int, length: int, *, bf16: bool, checkpointing: bool) -> int:
    """Bytes of activations kept for the backward pass of one batch.

    34 s b h per layer at 16 bits without the attention matrix, which SDPA and FlashAttention do not keep; with
    checkpointing 2 s b h per layer and one layer in full (arXiv 2205.05198, table 2), and the logits. An upper bound:
    a frozen weight does not need its input.
    """
    config = model.config.get_text_config()
    unit = rows * length * config.hidden_size * (1 if bf16 else 2)
    layers = config.num_hidden_layers
    kept = (2 * layers + LAYER_BYTES) * unit if checkpointing else LAYER_BYTES * layers * unit
    return int(kept + rows * length * config.vocab_size * LOGIT_BYTES)


def _base_bytes(model: PreTrainedModel, weights: int) -> int:
    """The weights on a GPU; on a CPU the process as it stands, and the weights unless they are loaded already."""
    if on_gpu(model):
        return weights
    import psutil

    return int(psutil.Process().memory_info().rss) + (weights if model.device.type == "meta" else 0)


def _operations(total: int, trainable: int, tokens: int, choices: Choices) -> float:
    """Floating point operations: 2 per parameter and token forward, 2 backward through the frozen base (6 in all for
    the adapter, whose weights have gradients), 2 more to recompute (arXiv 2001.08361, table 1).
    """  # noqa: D205
    return tokens * ((6 if choices.gradient_checkpointing else 4) * total + 6 * trainable)


def _speed(choices: Choices, model: PreTrainedModel, lengths: Sequence[int]) -> float:
    """Operations per second of training, from a short probe on the device that would train."""
    hidden = int(model.config.get_text_config().hidden_size)
    rows = max(1, choices.micro_batch * sum(lengths) // max(1, len(lengths)))
    return EFFICIENCY * 2 * rows * hidden**2 / _product("cuda" if on_gpu(model) else "cpu", choices.bf16, rows, hidden)


@functools.cache
def _product(device: str, bf16: bool, rows: int, hidden: int) -> float:
    """Seconds of a matrix product, the best of a fifth of a second; measured once, as jobs of a sweep ask alike."""
    import torch

    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if bf16 else torch.float32
    left = torch.randn(rows, hidden, device=device, generator=generator).to(dtype)
    right = torch.randn(hidden, hidden, device=device, generator=generator).to(dtype)
    end, best = time.perf_counter() + PROBE_SECONDS, math.inf
    while time.perf_counter() < end or best == math.inf:
        start = time.perf_counter()
        (left @ right)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return best


def _linear(model: PreTrainedModel) -> int:
    import torch

    head = model.get_output_embeddings()
    layers = (module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not head)
    return sum(layer.in_features * layer.out_features for layer in layers)


def _quantised(model: PreTrainedModel) -> list[int]:
    import torch

    layers = (module for module in model.modules() if isinstance(module, torch.nn.Linear))
    return [layer.in_features * layer.out_features for layer in layers if not layer.weight.dtype.is_floating_point]
