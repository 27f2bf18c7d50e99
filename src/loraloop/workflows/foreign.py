"""Adapters as other trainers write them, brought into PEFT's plain layout, or refused by name.

Of a folder, configuration and weights in safetensors are read; nothing of it is executed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import adapter_files, servable
from loraloop.core.adapter_files import WEIGHTS
from loraloop.errors import ArtefactError, ModelError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

PREFIX = "base_model.model."
WRAPPERS = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
"""Parts of a name that torch.compile, FSDP and activation checkpointing add."""
MATRIX = re.compile(r"(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.(?P<adapter>[^.]+))?\.weight")
WHOLE = re.compile(r"(?P<layer>.+?)(?:\.base_layer|\.modules_to_save(?:\.[^.]+)?|\.original_module)?\.weight")
NOTHING = "all matrices B are 0, so that it answers as the base does"
MERGE = "merge the adapter into its base with the tool that made it, and use the merged model as base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What was made of a folder: where it lies now, and what differs, in words."""

    folder: Path
    changes: tuple[str, ...]


def require_known(path: Path, config: Mapping[str, Any]) -> None:
    """Check that a configuration asks for no code and for nothing that this PEFT does not know.

    Raises:
        ArtefactError: It does; names the setting.
    """
    from dataclasses import fields

    from peft import LoraConfig
    from peft import __version__ as ours

    mapping = config.get("auto_mapping") or {}
    library = str(mapping.get("parent_library", "transformers") if isinstance(mapping, Mapping) else mapping)
    if library.split(".")[0] != "transformers":
        raise ArtefactError(
            f"{path} has auto_mapping to {library}, code of a base that comes with its files, which is never executed: "
            "train on a base whose class is part of transformers"
        )
    known = {field.name for field in fields(LoraConfig)} | servable.SHAPE | servable.TRAINING
    unknown = sorted(f"{key}={value!r}" for key, value in config.items() if value and key not in known)
    if unknown:
        raise ArtefactError(
            f"{path} sets {', '.join(unknown)}, which PEFT {ours} does not know (it was written by PEFT "
            f"{config.get('peft_version') or 'of another version'}): train or save it without"
        )


def take(folder: Path, target: Path, config: Mapping[str, Any], base: PreTrainedModel) -> Taken:
    """Write a folder's adapter in PEFT's plain layout, with the names of the base's layers.

    Args:
        folder: In the layout of PEFT or of a trainer.
        target: Folder that is made.
        config: ``adapter_config.json`` of the folder.
        base: Says which layers there are.

    Raises:
        ModelError: A tensor is no LoRA of one of the base's layers; names it.
    """
    read = adapter_files.tensors(folder)
    _require_floating(folder / WEIGHTS, read)
    tensors = _Names(base, folder / WEIGHTS).plain(read)
    kept = {key: value for key, value in config.items() if key in servable.SHAPE | servable.TRAINING | {"bias"}}
    kept.pop("auto_mapping", None)
    target.mkdir(parents=True)
    adapter_files.write(target, tensors.made, json.dumps(kept, indent=2, sort_keys=True).encode() + b"\n")
    return Taken(folder=target, changes=tuple(tensors.changes()))


def _require_floating(file: Path, tensors: Mapping[str, Tensor]) -> None:
    wrong = [
        f"{name} in {str(each.dtype).removeprefix('torch.')}"
        for name, each in tensors.items()
        if not each.dtype.is_floating_point
    ]
    if wrong:
        raise ModelError(
            f"{file} holds {wrong[0]} ({len(wrong)} of {len(tensors)} tensors): codes of a quantisation are no "
            "weights; save the adapter in float32"
        )


@dataclass(slots=True)
class _Plain:
    made: dict[str, Tensor]
    renamed: list[str]
    dropped: list[str]

    def changes(self) -> list[str]:
        told = {"under other names": self.renamed, "left out, equal to the base's": self.dropped}
        made = [f"{len(names)} tensors {what}, such as {names[0]}" for what, names in told.items() if names]
        ups = [tensor for name, tensor in self.made.items() if ".lora_B." in name]
        return made if any(bool(tensor.any()) for tensor in ups) else [*made, NOTHING]


class _Names:
    """Finds the base's layers behind a file's names."""

    def __init__(self, base: PreTrainedModel, file: Path) -> None:
        self._base, self._file = base, file
        self._layers = dict(base.named_modules())

    def plain(self, tensors: Mapping[str, Tensor]) -> _Plain:
        found = _Plain({}, [], [])
        self._require_one({match["adapter"] for name in tensors if (match := MATRIX.fullmatch(name))} - {None})
        for name, tensor in tensors.items():
            match = MATRIX.fullmatch(name)
            if match is None:
                self._require_of_base(name, tensor)
                found.dropped.append(name)
                continue
            key = f"{PREFIX}{self._layer(match['layer'], name)}.lora_{match['side']}.weight"
            if key in found.made:
                raise ModelError(f"{self._file} holds {key} twice under other names, of which one is {name}")
            found.made[key] = tensor
            found.renamed += [name] if key != name else []
        return found

    def _require_one(self, adapters: set[str | None]) -> None:
        if len(adapters) > 1:
            raise ModelError(
                f"{self._file} holds several adapters ({', '.join(sorted(map(str, adapters)))}): save one with "
                "save_pretrained(FOLDER, selected_adapters=[NAME])"
            )

    def _layer(self, written: str, name: str) -> str:
        bare = _bare(written)
        # Trainers save from within the base (without model.), or around it (with one more).
        for each in (bare, f"model.{bare}", bare.removeprefix("model.")):
            if each in self._layers:
                return each
        raise ModelError(
            f"{self._file} holds {name}, and the base has no layer {bare}: choose the base that it was trained on"
        )

    def _require_of_base(self, name: str, tensor: Tensor) -> None:
        """A tensor that is none of LoRA's matrices may only repeat the base."""
        import torch

        match = WHOLE.fullmatch(name)
        bare = _bare(match["layer"]) if match else ""
        places = (bare, f"model.{bare}", bare.removeprefix("model."))
        layer = next((self._layers[each] for each in places if each in self._layers), None)
        own = getattr(layer, "weight", None)
        if not isinstance(own, torch.Tensor):
            raise ModelError(
                f"{self._file} holds {name}, which is none of LoRA's two matrices and no weight of the base: {MERGE}"
            )
        if own.shape != tensor.shape:
            raise ModelError(
                f"{self._file} holds {name} of shape {list(tensor.shape)}, and the base's is {list(own.shape)}: tokens "
                f"were added to the base, whose tokenizer this one is not; {MERGE}"
            )
        if not torch.equal(own.to(tensor), tensor):
            raise ModelError(f"{self._file} holds {name}, a whole layer that was trained along: {MERGE}")


def _bare(written: str) -> str:
    name = ".".join(part for part in written.split(".") if part not in WRAPPERS).removeprefix("module.")
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return name
