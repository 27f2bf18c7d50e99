"""An adapter merged into its base by PEFT, and how much of the base that changed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from loraloop.core import adapter_files
from loraloop.errors import ModelError
from loraloop.publish.export import Export
from loraloop.records import LoadedModel, Version

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)
NOTHING = 0.01
"""A merge that changes a smaller share of the adapted weights than this is said to change almost nothing."""


def merge(loaded: LoadedModel, adapter: Path, dtype: str) -> tuple[PreTrainedModel, float]:
    """The base with the adapter in its weights, and the share of the adapted weights that differ from the base's.

    Both are compared after rounding to ``dtype``: an update below the type's resolution is lost in it.

    Raises:
        ModelError: The adapter does not fit the base, or the merged weights are not finite.
    """
    import torch
    from peft import PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

    kind = getattr(torch, dtype)
    try:
        with adapter_files.plain(adapter) as read:
            carrier = PeftModel.from_pretrained(loaded.model, str(read), use_safetensors=True)
        adapted = [
            (name, cast("Any", layer).get_base_layer().weight.detach().to(kind, copy=True))
            for name, layer in cast("Any", carrier).get_base_model().named_modules()
            if isinstance(layer, BaseTunerLayer)
        ]
        merged = cast("Any", carrier).merge_and_unload(safe_merge=True).to(kind)
    except (ValueError, RuntimeError) as error:
        raise ModelError(f"the adapter in {adapter} cannot be merged into {loaded.base.name}: {error}") from error
    total = sum(before.numel() for _, before in adapted)
    differ = sum(int((merged.get_submodule(name).weight != before).sum()) for name, before in adapted)
    changed = differ / max(1, total)
    if changed < NOTHING:
        log.warning(
            "the merge changes %.2f%% of the adapted weights in %s: it is almost the base; take publish.dtype=float32",
            100 * changed,
            dtype,
        )
    return cast("PreTrainedModel", merged), changed


def parameters(skeleton: LoadedModel) -> int:
    """How many parameters a base has, tied ones counted once."""
    model = skeleton.model
    model.tie_weights()
    return sum(value.numel() for value in model.parameters())


def card(version: Version, export: Export, metrics: Mapping[str, float], usage: str) -> str:
    """A model card in Markdown; equal arguments give equal text."""
    scores = "".join(f"| {name} | {value:.4g} |\n" for name, value in metrics.items())
    return (
        f"# {version.name} version {version.number}, {export.form}\n\n"
        f"{export.base} with a LoRA adapter, exported by loraloop as {export.form} in {export.dtype}. The adapter was "
        f"trained on the base in {export.trained_on} quantisation; its weights have SHA-256 "
        f"`{version.manifest.weights_sha256}`.\n\n"
        + (
            f"Scores of the adapter before the export:\n\n| metric | value |\n| --- | --- |\n{scores}\n"
            if scores
            else ""
        )
        + f"Whether the export answers the same is measured by `loraloop stage=verify`, which writes a parity file "
        f"beside the weights.\n\n{usage}\n"
    )
