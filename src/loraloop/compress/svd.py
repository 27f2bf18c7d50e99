"""A LoRA of a lower rank, by truncated singular value decomposition of each layer's update."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from loraloop.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from loraloop.compress.adapter import Adapter

DOWN, UP = ".lora_A.weight", ".lora_B.weight"
PREFIX = "base_model.model."
Choose = Callable[["Tensor"], int]
"""From a layer's singular values, largest first, to the rank that it keeps."""


def truncated(down: Tensor, up: Tensor, choose: Choose) -> tuple[Tensor, Tensor]:
    """The factors of the best approximation of ``up @ down`` of a lower rank.

    The product is never formed. With ``up = Q1 R1`` and ``down.T = Q2 R2``, the singular value decomposition of the
    small ``R1 R2.T = U S V.T`` gives that of the product, ``(Q1 U) S (Q2 V).T`` (Bebendorf 2008, Hierarchical
    Matrices, section 1.1.4). Its first ``k`` terms are the best approximation of rank ``k`` in the Frobenius norm, off
    by the root of the sum of the squares of the others (Eckart and Young 1936, Psychometrika 1:211). In float64.

    Args:
        down: ``[rank, inputs]``.
        up: ``[outputs, rank]``.
        choose: Gives the rank that is kept.

    Returns:
        ``[k, inputs]`` and ``[outputs, k]`` in float64; each takes the root of the singular values.
    """
    import torch

    q1, r1 = torch.linalg.qr(up.double())
    q2, r2 = torch.linalg.qr(down.double().T)
    u, s, vt = torch.linalg.svd(r1 @ r2.T, full_matrices=False)
    k = choose(s)
    root = s[:k].sqrt()
    return root[:, None] * (vt[:k] @ q2.T), (q1 @ u[:, :k]) * root


def by_rank(rank: int) -> Choose:
    """Keep ``rank`` singular values, or all where there are fewer."""
    return lambda values: min(rank, len(values))


def by_energy(share: float) -> Choose:
    """Keep the fewest singular values whose squares are at least ``share`` of the sum of the squares; at least one."""

    def choose(values: Tensor) -> int:
        kept = values.square().cumsum(0)
        return min(len(values), 1 + int((kept < share * kept[-1]).sum()))

    return choose


def smaller(adapter: Adapter, choose: Choose) -> Adapter:
    """The adapter with every layer truncated.

    Every layer has the scaling 1: what PEFT multiplied with (``alpha / r``, with rsLoRA ``alpha / sqrt(r)``) goes into
    the matrices. So the result is right too in a program that knows one ``lora_alpha / r`` for all layers.

    Raises:
        ModelError: It holds something else than LoRA's two matrices a layer.
    """
    other = [name for name in adapter.tensors if not name.endswith((DOWN, UP))]
    if other:
        raise ModelError(f"the adapter holds {other[0]}, and only LoRA's two matrices a layer are compressed")
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for name in [name.removesuffix(DOWN) for name in adapter.tensors if name.endswith(DOWN)]:
        down, up = adapter.tensors[name + DOWN], adapter.tensors[name + UP]
        layer = name.removeprefix(PREFIX)
        made = truncated(down, up.double() * scaling(adapter.config, layer, down.shape[0]), choose)
        ranks[layer] = len(made[0])
        tensors[name + DOWN], tensors[name + UP] = made[0].to(down.dtype), made[1].to(up.dtype)
    largest = max(ranks.values())
    others = {layer: rank for layer, rank in ranks.items() if rank != largest}
    patterns = {"rank_pattern": others, "alpha_pattern": others}
    config = {**adapter.config, **patterns, "r": largest, "lora_alpha": largest, "use_rslora": False}
    return adapter.changed(tensors, config)


def scaling(config: Mapping[str, Any], layer: str, rank: int) -> float:
    """What PEFT multiplies a layer's update with.

    Args:
        config: ``adapter_config.json``.
        layer: Its name in the base.
        rank: Of the layer.
    """
    from peft.utils.other import get_pattern_key

    alphas = config.get("alpha_pattern") or {}
    alpha = float(alphas.get(get_pattern_key(list(alphas), layer), config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
