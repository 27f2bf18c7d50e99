"""Whether an adapter answers the same merged into its base as beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from loraloop.errors import ModelError
from loraloop.evaluation.infer import inference

TOLERANCE = 1e-4
HALF_TOLERANCE = 5e-2


@dataclass(frozen=True, slots=True)
class Agreement:
    """Largest absolute difference of a logit, merged beside unmerged, and the largest that is accepted."""

    difference: float
    tolerance: float
    rows: int


def agreement(model: Any, rows: Sequence[Sequence[int]]) -> Agreement:
    """Compare the logits of a PEFT ``model`` as trained with those of its merged weights, on token ids ``rows``.

    Each adapted layer is merged by PEFT's own arithmetic only while it computes, so the check takes the memory of
    one layer and leaves the model bit for bit as it was. Where the base is quantised, the adapter is merged into the
    *dequantised* weights, as a merged export would be: PEFT's in-place merge of an NF4 layer quantises the sum once
    more, which is another model.

    The tolerance is a share of the largest logit: 1e-4 in float32, 5e-2 where the base computes in 16 bits.

    Raises:
        ModelError: The difference is larger than the tolerance, or merged weights are not finite.
    """
    import torch

    with inference(model) as device:
        ids = [torch.tensor([row], device=device) for row in rows]
        apart = [model(input_ids=row, use_cache=False).logits.float() for row in ids]
        with _merging(model):
            merged = [model(input_ids=row, use_cache=False).logits.float() for row in ids]
    difference = max(float((a - b).abs().max()) for a, b in zip(apart, merged, strict=True))
    tolerance = (HALF_TOLERANCE if _half(model) else TOLERANCE) * max(float(a.abs().max()) for a in apart)
    if not difference <= tolerance:
        raise ModelError(
            f"the merged adapter does not answer like the unmerged one: logits differ by up to {difference:.3g}, "
            f"rounding explains {tolerance:.3g}; do not publish merged weights of this adapter"
        )
    return Agreement(difference, tolerance, len(rows))


def _half(model: Any) -> bool:
    import torch

    dtypes = {parameter.dtype for parameter in model.parameters()}
    dtypes |= {getattr(module, "compute_dtype", None) for module in model.modules()}
    return bool(dtypes & {torch.float16, torch.bfloat16})


@contextlib.contextmanager
def _merging(model: Any) -> Iterator[None]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers: list[Any] = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    with contextlib.ExitStack() as stack:
        for layer in layers:
            one = _OneLayer()
            stack.callback(layer.register_forward_pre_hook(one.merge).remove)
            stack.callback(layer.register_forward_hook(one.restore, always_call=True).remove)
        yield


class _OneLayer:
    """Hooks that merge one layer before it computes and put the base back after."""

    def merge(self, layer: Any, _: Any) -> None:
        import torch
        from peft.tuners.lora.layer import Linear
        from peft.utils.integrations import dequantize_module_weight

        self.base = layer.base_layer
        inner = layer.get_base_layer()
        weight = dequantize_module_weight(inner)
        self.saved = [(parameter, parameter.data) for parameter in inner.parameters(recurse=False)]
        try:
            if weight is inner.weight:
                layer.merge(safe_merge=True)
            else:
                dense = torch.nn.Linear(inner.in_features, inner.out_features, bias=False, device="meta")
                dense.weight = torch.nn.Parameter(weight.detach(), requires_grad=False)
                dense.bias = inner.bias
                layer.base_layer = dense
                Linear.merge(layer, safe_merge=True)
        except ValueError as error:
            raise ModelError(f"the adapter cannot be merged: {error}") from error

    def restore(self, layer: Any, *_: Any) -> None:
        layer.base_layer = self.base
        for parameter, data in self.saved:
            parameter.data = data
        layer.merged_adapters.clear()
