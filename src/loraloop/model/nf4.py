"""4-bit NF4 for a model that is already in memory (QLoRA, arXiv 2305.14314), by bitsandbytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


QUANTIZER = "bitsandbytes"


def quantize(model: PreTrainedModel, compute: torch.dtype, double: bool) -> None:
    """Replace every linear layer except the head by its NF4 form, in place.

    Loading does this for stored weights; here it serves models that were built with random ones.
    """
    from bitsandbytes.nn.modules import Linear4bit, Params4bit
    from torch import nn

    layers = [name for name, layer in model.named_modules() if isinstance(layer, nn.Linear)]
    head = model.get_output_embeddings()
    for name in layers:
        layer = model.get_submodule(name)
        if layer is head or not isinstance(layer, nn.Linear):
            continue
        packed = Linear4bit(
            layer.in_features,
            layer.out_features,
            bias=layer.bias is not None,
            compute_dtype=compute,
            compress_statistics=double,
            quant_type="nf4",
        )
        packed.weight = Params4bit(
            layer.weight.data.cpu(), requires_grad=False, compress_statistics=double, quant_type="nf4"
        )
        packed.bias = layer.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, packed.to(layer.weight.device))
    # Not is_quantized too: transformers' Trainer would look for the quantizer that loading stored weights leaves.
    cast("Any", model).is_loaded_in_4bit = True


def block_size(model: PreTrainedModel) -> int | None:
    """How many weights share a scale in a model's NF4 layers; ``None`` without such layers."""
    from bitsandbytes.nn.modules import Linear4bit

    found = next((layer for layer in model.modules() if isinstance(layer, Linear4bit)), None)
    state = getattr(found.weight, "quant_state", None) if found is not None else None
    return None if state is None else int(state.blocksize)


def usual_block_size() -> int:
    """The block size of what is quantised on this machine."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    return int(quantize_4bit(torch.zeros(256), quant_type="nf4")[1].blocksize)


def dequantize(model: PreTrainedModel) -> None:
    """Replace every NF4 layer by a linear one with the values that NF4 stands for, in float32, in place."""
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit
    from torch import nn

    for name, layer in [(name, layer) for name, layer in model.named_modules() if isinstance(layer, Linear4bit)]:
        with torch.device("meta"):
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
        weight: Any = layer.weight
        plain.weight = nn.Parameter(dequantize_4bit(weight.data, weight.quant_state).float(), requires_grad=False)
        plain.bias = layer.bias
        model.set_submodule(name, plain)
    bare = cast("Any", model)
    bare.is_loaded_in_4bit = bare.is_quantized = False
    bare.config.__dict__.pop("quantization_config", None)
    bare.hf_quantizer = bare.quantization_method = None
    model.float()


def keep_trainable(model: PreTrainedModel) -> None:
    """Keep NF4 layers on the CPU in the layout that has a backward pass.

    On a processor with AVX512-BF16, bitsandbytes 0.50 repacks the weights for good in the first evaluation without
    gradients; gradients through them are then silently wrong.
    """
    for layer in model.modules():
        if getattr(layer, "support_avx512bf16_for_cpu", False):
            cast("Any", layer).support_avx512bf16_for_cpu = False
