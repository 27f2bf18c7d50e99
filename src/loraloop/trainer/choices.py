"""What ``auto`` means on this machine, for this model and these rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from loraloop.trainer.settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CPU_TOKENS = 4096  # padded tokens per forward pass on a CPU: beyond it larger passes are no faster, only larger
BF16_WIDTH = 256  # bf16 over fp32 by hidden size, two Zen 5 cores: 64 0.70x, 128 1.04x, 256 1.46x, 512 1.81x


@dataclass(frozen=True, slots=True)
class Choices:
    """How a run is carried out; none of it changes what is learned beyond rounding."""

    bf16: bool
    gradient_checkpointing: bool
    packing: bool
    micro_batch: int
    accumulation: int


def choose(settings: Settings, model: PreTrainedModel, lengths: Sequence[int]) -> Choices:
    """Decide every ``auto``; the same machine, model and rows give the same answer.

    Args:
        settings: The trainer's settings.
        model: Base model; on the meta device the machine's GPU is assumed where there is one.
        lengths: Tokens of each training row.
    """
    gpu = on_gpu(model)
    micro = settings.batch_size if gpu else _cpu_rows(settings, max(lengths, default=1))
    if settings.micro_batch != "auto":
        micro = settings.micro_batch
    return Choices(
        bf16=bf16_is_faster(model) if settings.bf16 == "auto" else settings.bf16,
        gradient_checkpointing=gpu if settings.gradient_checkpointing == "auto" else settings.gradient_checkpointing,
        packing=settings.packing is True,
        micro_batch=micro,
        accumulation=settings.rows_per_step // micro,
    )


def on_gpu(model: PreTrainedModel) -> bool:
    """Whether ``model`` computes on a CUDA GPU, or would once it had weights."""
    import torch

    return model.device.type == "cuda" or (model.device.type == "meta" and torch.cuda.is_available())


def bf16_is_faster(model: PreTrainedModel) -> bool:
    """On a GPU with bfloat16, and on a CPU with bfloat16 instructions once the matrices outweigh the casts."""
    import torch

    if on_gpu(model):
        return bool(torch.cuda.is_bf16_supported())
    able = torch.cpu.get_capabilities()
    native = bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("amx_tile"))
    return native and int(model.config.get_text_config().hidden_size) >= BF16_WIDTH


def isolating_attention(model: PreTrainedModel) -> bool:
    """Whether packed neighbours cannot see each other: FlashAttention's variable-length kernels on a GPU."""
    return on_gpu(model) and "flash" in str(model.config._attn_implementation)


def _cpu_rows(settings: Settings, longest: int) -> int:
    """The most rows per forward pass that divide a step and stay within ``CPU_TOKENS``, at least ``batch_size``."""
    divisors = (n for n in range(1, settings.accumulation + 1) if settings.accumulation % n == 0)
    fitting = [settings.batch_size * n for n in divisors if settings.batch_size * n * longest <= CPU_TOKENS]
    return max(fitting, default=settings.batch_size)
