"""An adapter merged into its base by PEFT, and how much of the base that changed."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from loraloop.core import adapter_files
from loraloop.errors import ModelError
from loraloop.publish.card import NOTHING
from loraloop.records import LoadedModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)


def merge(loaded: LoadedModel, adapter: Path, dtype: str, rounding: str | None = None) -> tuple[PreTrainedModel, float]:
    """The base with the adapter in its weights, and the share of the adapted weights that differ from the base's.

    Both are compared after rounding to ``rounding``: an update below the type's resolution is lost in it. Weights of
    the base that are 0 are left out: no update is lost beside them, and NF4 makes a tenth of all weights 0.

    Args:
        loaded: The base.
        adapter: Folder in PEFT's layout.
        dtype: Of the result.
        rounding: The type in which it will be kept; ``None`` is ``dtype``.

    Raises:
        ModelError: The adapter does not fit the base, or the merged weights are not finite.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    kind = getattr(torch, rounding or dtype)
    log.info("merging into %s in %s", loaded.base.name, dtype)
    try:
        with adapter_files.plain(adapter) as read:
            carrier = PeftModel.from_pretrained(loaded.model, str(read), use_safetensors=True)
        adapted = [
            (name, cast("Any", layer).get_base_layer().weight.detach().to(kind, copy=True))
            for name, layer in cast("Any", carrier).get_base_model().named_modules()
            if isinstance(layer, BaseTunerLayer)
        ]
        merged = cast("Any", carrier).merge_and_unload(safe_merge=True).to(getattr(torch, dtype))
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"the adapter in {adapter} cannot be merged into {loaded.base.name}: {error}") from error
    total = sum(int((before != 0).sum()) for _, before in adapted)
    after = ((merged.get_submodule(name).weight.to(kind), before) for name, before in adapted)
    differ = sum(int(((weight != before) & (before != 0)).sum()) for weight, before in after)
    changed = differ / max(1, total)
    if changed < NOTHING:
        log.warning(
            "the merge changes %.2f%% of the adapted weights in %s: it is almost the base; take publish.dtype=float32",
            100 * changed,
            rounding or dtype,
        )
    return cast("PreTrainedModel", merged), changed


def parameters(skeleton: LoadedModel) -> int:
    """How many parameters a base has, tied ones counted once."""
    model = skeleton.model
    model.tie_weights()
    return sum(value.numel() for value in model.parameters())
