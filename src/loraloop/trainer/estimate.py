"""What a run will take, from shapes and row lengths, before it starts (promise T8)."""

from __future__ import annotations

import functools
import logging
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loraloop.records import Base, Encoded, Estimate, LoadedModel
from loraloop.trainer import dry_run, memory
from loraloop.trainer.choices import Choices, on_gpu
from loraloop.trainer.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from loraloop.protocols import Lora

log = logging.getLogger(__name__)

# Bytes per weight: 4 bits, and per 64 weights an fp32 constant, or an 8-bit one with an fp32 per 256 of those
# (QLoRA, arXiv 2305.14314, section 3).
NF4_BYTES = {"none": 0.0, "nf4": 0.5 + 4 / 64, "nf4-double": 0.5 + 1 / 64 + 4 / (64 * 256)}
DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ADAPTER_BYTES = 16  # per trained parameter in fp32: the weight, its gradient and AdamW's two moments
LAYER_BYTES = 34  # of activations per token and hidden unit of a layer at 16 bits (arXiv 2205.05198, eq. 2)
LOGIT_BYTES = 8  # per token and vocabulary entry: fp32 logits and their gradient
LATER = 64 * 2**20  # in the process between the estimate and the training: MLflow 90 MiB, without a tracker 30
TRAINER, TRAINER_BYTES = "trl.trainer.sft_trainer", 24 * 2**20  # what it adds to the others; a pack never imports it
PROBE_SECONDS = 0.2
EFFICIENCY = 0.4  # of the product's speed in training: measured 0.4 (hidden 128), 0.5 (256) in fp32, 0.2 in bf16 (256)

_measured: dict[tuple[object, ...], int] = {}
"""Bytes of activations by what decides them: the jobs of a sweep and the retrainings of a server mostly ask alike."""
MOST_MEASURED = 64


@dataclass(frozen=True, slots=True)
class Rows:
    """Sizes of training rows.

    Attributes:
        lengths: Tokens of each row.
        scored: Tokens of each row that are projected to logits.
    """

    lengths: Sequence[int]
    scored: Sequence[int]

    @classmethod
    def of(cls, rows: Sequence[Encoded]) -> Rows:
        """Sizes of encoded rows."""
        return cls([len(row.input_ids) for row in rows], [row.scored for row in rows])

    def largest(self, rows: int) -> dry_run.Pass:
        """A forward pass of so many rows that no pass of these rows is larger."""
        return dry_run.Pass(rows, max(self.lengths, default=1), rows * max(self.scored, default=1))


def estimate(settings: Settings, choices: Choices, loaded: LoadedModel, lora: Lora, rows: Rows) -> Estimate:
    """Steps, tokens, memory and time of a run.

    Args:
        settings: The trainer's settings.
        choices: How the run is carried out.
        loaded: The base, perhaps on the meta device: only shapes are read.
        lora: The adapter.
        rows: What it is trained on.

    Returns:
        ``tokens`` without padding; ``memory_bytes`` of the GPU, or of this process in RAM, the sum of
        :func:`memory_parts`; ``seconds`` as :func:`seconds` says.
    """
    steps, tokens = _work(settings, rows)
    trainable = lora.trainable_parameters(loaded.model)
    return Estimate(
        trainable_parameters=trainable,
        total_parameters=parameters(loaded.model) + trainable,
        steps=steps,
        tokens=tokens,
        memory_bytes=sum(memory_parts(choices, loaded, lora, rows).values()),
        seconds=seconds(settings, choices, loaded, lora, rows),
        devices=settings.processes,
    )


def memory_parts(choices: Choices, loaded: LoadedModel, lora: Lora, rows: Rows) -> dict[str, int]:
    """Bytes by what they are for; in the largest forward and backward pass."""
    model, base = loaded.model, loaded.base
    live = activation_bytes(model, lora, rows.largest(choices.micro_batch), choices, base)
    return {
        "process": 0 if on_gpu(model) else _process_bytes(),
        "weights": 0 if _counted_already(model) else weight_bytes(model, base.quantization, base.dtype),
        "adapter": lora.trainable_parameters(model) * ADAPTER_BYTES,
        "activations": live if on_gpu(model) else round(memory.HOLES * live),
    }


def seconds(settings: Settings, choices: Choices, loaded: LoadedModel, lora: Lora, rows: Rows) -> float:
    """Seconds of training without evaluation, from the best speed of this machine in a matrix product."""
    model, (_, tokens) = loaded.model, _work(settings, rows)
    operations = _operations(parameters(model), lora.trainable_parameters(model), tokens, choices)
    if on_gpu(model):
        operations /= settings.processes  # on a CPU they share the cores
    return operations / _speed(choices, model, rows.lengths)


def _work(settings: Settings, rows: Rows) -> tuple[int, int]:
    """Steps, where packed sequences count as rows, and tokens without padding."""
    count = settings.sequences(rows.lengths)
    epochs, steps = settings.passes(count), settings.steps(count)
    whole = epochs * settings.steps_per_pass(count)
    return steps, round(sum(rows.lengths) * epochs * steps / max(1, whole))


def parameters(model: PreTrainedModel) -> int:
    """Parameters of a model, counting the weights that bitsandbytes packs two in a byte."""
    return sum(_quantised(model)) + sum(value.numel() for value in model.parameters() if value.dtype.is_floating_point)


def weight_bytes(model: PreTrainedModel, quantization: str, dtype: str) -> int:
    """Bytes of a model's weights under ``quantization`` of its linear layers, the rest in ``dtype``."""
    total = parameters(model)
    linear = 0 if quantization == "none" else _linear(model)
    return round(linear * NF4_BYTES[quantization] + (total - linear) * DTYPE_BYTES[dtype])


def activation_bytes(model: PreTrainedModel, lora: Lora, shape: dry_run.Pass, choices: Choices, base: Base) -> int:
    """Most bytes of tensors that live at once in a pass: from a dry run, or where a model refuses one, a formula."""
    config = model.config.to_json_string(use_diff=False)
    key = (config, on_gpu(model), repr(lora), shape, choices, base.quantization, base.dtype)
    known = _measured.get(key)
    if known is None:
        if len(_measured) >= MOST_MEASURED:
            _measured.clear()
        known = _measured[key] = _activation_bytes(model, lora, shape, choices, base)
    return known


def _activation_bytes(model: PreTrainedModel, lora: Lora, shape: dry_run.Pass, choices: Choices, base: Base) -> int:
    quantized = base.quantization != "none"
    try:
        return dry_run.step_bytes(model, lora, shape, choices, quantized=quantized, dtype=base.dtype)
    except Exception as error:  # each architecture refuses a run without values in another way
        log.warning("memory is estimated by a formula, which may be half of what it takes: %s", error)
        return formula_bytes(model, shape, choices)


def formula_bytes(model: PreTrainedModel, shape: dry_run.Pass, choices: Choices) -> int:
    """Bytes of activations kept for the backward pass.

    34 s b h per layer at 16 bits without the attention matrix, which SDPA and FlashAttention do not keep; with
    checkpointing 2 s b h per layer and one layer in full (arXiv 2205.05198, table 2), and the logits.
    """
    config = model.config.get_text_config()
    unit = shape.rows * shape.length * config.hidden_size * (1 if choices.bf16 else 2)
    layers = config.num_hidden_layers
    kept = (2 * layers + LAYER_BYTES) * unit if choices.gradient_checkpointing else LAYER_BYTES * layers * unit
    return int(kept + shape.scored * config.vocab_size * LOGIT_BYTES)


def _process_bytes() -> int:
    """This process as it stands, with the libraries that training needs and what tracker and evaluation add later."""
    import psutil

    awaited = 0 if TRAINER in sys.modules else TRAINER_BYTES
    return int(psutil.Process().memory_info().rss) + awaited + LATER


def _counted_already(model: PreTrainedModel) -> bool:
    """Whether the weights are a part of this process."""
    return model.device.type == "cpu"


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
