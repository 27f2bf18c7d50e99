"""Adapter weights in 8 or 4 bits: a safetensors layout, and the way back to the tensors that PEFT names.

A matrix ``NAME`` of int8 is kept as ``NAME.int8`` (codes) and ``NAME.scale`` (float32); one of NF4 as ``NAME.nf4`` (two
codes a byte), ``NAME.absmax`` (float32, one a block of :data:`BLOCK` values) and ``NAME.shape``. Other tensors stay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

Storage = Literal["plain", "int8", "nf4"]
"""How weights are kept; ``plain`` is PEFT's own layout."""
BLOCK = 64
"""Values that share a scale in NF4, as in QLoRA."""
CODES, SCALE = ".int8", ".scale"
NF4_CODES, ABSMAX, SHAPE = ".nf4", ".absmax", ".shape"


def storage(names: Iterable[str]) -> Storage:
    """How the tensors of these names are kept."""
    endings = {f".{name.rpartition('.')[2]}" for name in names}
    return "int8" if CODES in endings else "nf4" if NF4_CODES in endings else "plain"


def pack(tensors: Mapping[str, Tensor], kept: Storage) -> dict[str, Tensor]:
    """Every matrix in 8 or 4 bits.

    int8 is symmetric, with one scale for each component of the rank, the shorter side of LoRA's matrices (vector-wise,
    as in LLM.int8, arXiv 2208.07339, section 3.1). NF4 is QLoRA's (arXiv 2305.14314, section 3), by bitsandbytes.

    Args:
        tensors: LoRA's matrices by PEFT's names.
        kept: ``int8`` or ``nf4``.
    """
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        made |= (_int8 if kept == "int8" else _nf4)(name, tensor.detach().float().contiguous())
    return made


def unpack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by PEFT's names, those that were packed in float32: what :func:`pack` was given, but for rounding."""
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain, _, ending = name.rpartition(".")
        if f".{ending}" == CODES:
            made[plain] = tensor.float() * tensors[plain + SCALE]
        elif f".{ending}" == NF4_CODES:
            made[plain] = _from_nf4(tensor, tensors[plain + ABSMAX], tuple(tensors[plain + SHAPE].tolist()))
        elif f".{ending}" not in (SCALE, ABSMAX, SHAPE):
            made[name] = tensor
    return made


def _int8(name: str, tensor: Tensor) -> dict[str, Tensor]:
    import torch

    inner = 1 if tensor.shape[0] <= tensor.shape[1] else 0
    scale = tensor.abs().amax(dim=inner, keepdim=True) / 127
    codes = (tensor / scale.clamp_min(torch.finfo(torch.float32).tiny)).round().clamp(-127, 127)
    return {name + CODES: codes.to(torch.int8), name + SCALE: scale}


def _nf4(name: str, tensor: Tensor) -> dict[str, Tensor]:
    import torch
    from bitsandbytes.functional import quantize_4bit

    # bitsandbytes is exact for whole blocks alone.
    padded = torch.nn.functional.pad(tensor.flatten(), (0, -tensor.numel() % BLOCK))
    codes, state = quantize_4bit(padded, blocksize=BLOCK, quant_type="nf4")
    shape = torch.tensor(tensor.shape, dtype=torch.int64)
    return {name + NF4_CODES: codes, name + ABSMAX: state.absmax, name + SHAPE: shape}


def _from_nf4(codes: Tensor, absmax: Tensor, shape: tuple[int, ...]) -> Tensor:
    import torch
    from bitsandbytes.functional import QuantState, dequantize_4bit, get_4bit_type

    state = QuantState(
        absmax=absmax,
        shape=torch.Size([codes.numel() * 2]),
        dtype=torch.float32,
        blocksize=BLOCK,
        quant_type="nf4",
        code=get_4bit_type("nf4", device=codes.device),
    )
    return dequantize_4bit(codes, state).flatten()[: math.prod(shape)].reshape(shape)
