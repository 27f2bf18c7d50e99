"""A trial's adapter as one flat vector: initialised by PEFT, saved by PEFT."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from loraloop.core import atomic

if TYPE_CHECKING:
    from peft import PeftModel
    from torch import Tensor
    from transformers import PreTrainedModel

    from loraloop.protocols import Lora

DEFAULT = "default"
Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA of one rank.

    Attributes:
        flat: A and B of every layer, layer after layer, in one vector.
        layers: Inputs and outputs of every adapted layer, by name, in the vector's order.
        scaling: What the product of B and A is multiplied by.
    """

    flat: Tensor
    layers: dict[str, Shape]
    rank: int
    scaling: float


def initial(model: PreTrainedModel, lora: Lora, seed: int) -> Adapter:
    """The adapter that TRL's trainer starts from under ``seed``.

    TRL 1.16 seeds torch right before PEFT makes the adapter, and keeps the adapter of a quantised base in bfloat16.
    """
    import torch

    with _wrapped(model, lora, seed) as wrapped:
        layers = dict(_adapted(wrapped))
        first = next(iter(layers.values()))
        flat = torch.cat([part.detach().ravel() for layer in layers.values() for part in _weights(layer)])
        quantised = getattr(model, "is_loaded_in_4bit", False)
        return Adapter(
            flat=flat.to(torch.bfloat16) if quantised else flat,
            layers={name: (layer.in_features, layer.out_features) for name, layer in layers.items()},
            rank=lora.r,
            scaling=float(first.scaling[DEFAULT]),
        )


def split(flat: Tensor, layers: dict[str, Shape], rank: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Views of ``[trials, parameters]``: layer, A ``[trials, rank, inputs]`` and B ``[trials, outputs, rank]``."""
    start = 0
    for name, (inputs, outputs) in layers.items():
        middle, end = start + rank * inputs, start + rank * (inputs + outputs)
        yield (
            name,
            flat[:, start:middle].unflatten(1, (rank, inputs)),
            flat[:, middle:end].unflatten(1, (outputs, rank)),
        )
        start = end


def save(model: PreTrainedModel, lora: Lora, adapter: Adapter, flat: Tensor, output: Path) -> Path:
    """Save the weights ``flat`` of ``adapter`` under ``output/adapter`` in PEFT's layout."""
    parts = {name: (a[0], b[0]) for name, a, b in split(flat[None], adapter.layers, adapter.rank)}
    with _wrapped(model, lora, seed=0) as wrapped:
        for name, layer in _adapted(wrapped):
            for weight, value in zip(_weights(layer), parts[name], strict=True):
                weight.data = value.contiguous()
        with atomic.folder(output / "adapter") as folder:
            wrapped.save_pretrained(str(folder))
    return output / "adapter"


@contextmanager
def _wrapped(model: PreTrainedModel, lora: Lora, seed: int) -> Iterator[PeftModel]:
    """The model with a new adapter; the base is itself again afterwards, and so is torch's random state."""
    import torch
    from peft import get_peft_model

    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        wrapped = cast("PeftModel", get_peft_model(model, lora.peft_config()))
    try:
        yield wrapped
    finally:
        wrapped.unload()


def _adapted(wrapped: PeftModel) -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    base = wrapped.get_base_model()
    return ((name, layer) for name, layer in base.named_modules() if isinstance(layer, LoraLayer))


def _weights(layer: Any) -> tuple[Any, Any]:
    return layer.lora_A[DEFAULT].weight, layer.lora_B[DEFAULT].weight
