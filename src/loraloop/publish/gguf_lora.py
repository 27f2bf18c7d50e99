"""A LoRA alone as GGUF, for ``llama-server --lora``."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import adapter_files
from loraloop.core.adapter_files import CONFIG
from loraloop.errors import RegistryError
from loraloop.publish import gguf_model

if TYPE_CHECKING:
    from transformers import PretrainedConfig

PREFIX = "base_model.model."


def require_plain(adapter: Path) -> None:
    """Check that llama.cpp can apply an adapter beside its base.

    Raises:
        RegistryError: It holds more than LoRA's two matrices: DoRA's magnitudes, or biases.
    """
    other = [name for name in adapter_files.tensors(adapter) if not name.endswith((".lora_A.weight", ".lora_B.weight"))]
    if other:
        raise RegistryError(
            f"llama.cpp applies LoRA's two matrices alone, and the adapter holds {other[0]}: set publish.merge=true"
        )


def write(file: Path, adapter: Path, base: PretrainedConfig, dtype: str) -> None:
    """Write an adapter's matrices under llama.cpp's names."""
    import gguf
    import torch

    config = json.loads((adapter / CONFIG).read_bytes())
    writer = gguf.GGUFWriter(file, gguf_model.architecture(base))
    writer.add_type(gguf.GGUFType.ADAPTER)
    writer.add_name(file.stem)
    writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
    writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config["lora_alpha"]))
    names = gguf_model.Names(base)
    for key, value in adapter_files.tensors(adapter).items():
        layer, _, which = key.removeprefix(PREFIX).removesuffix(".weight").rpartition(".")
        matrix = value.to(torch.float32).numpy()
        if which == "lora_B":
            matrix = names.arranged(layer, matrix * _rescale(config, layer, matrix.shape[1]))
        gguf_model.add(writer, f"{names.of(f'{layer}.weight')}.{which.lower()}", matrix, dtype)
    gguf_model.finish(writer)


def _rescale(config: dict[str, Any], layer: str, rank: int) -> float:
    """PEFT's scaling of a layer over llama.cpp's, which is one alpha for all layers over the layer's rank."""
    from peft.utils.other import get_pattern_key

    alphas: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = alphas.get(get_pattern_key(list(alphas), layer), float(config["lora_alpha"]))
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return float(scaling * rank / config["lora_alpha"])
