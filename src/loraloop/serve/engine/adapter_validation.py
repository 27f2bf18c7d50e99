"""Validation of an adapter before it may answer."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from loraloop.core import adapter_files, packing, quantisation, servable
from loraloop.core.adapter_files import CONFIG
from loraloop.core.hashing import sha256
from loraloop.errors import ModelError
from loraloop.records import Base, LoadedModel, Manifest, Version
from loraloop.serve.engine.lora import LoraAdapter, Update

if TYPE_CHECKING:
    from peft import LoraConfig
    from peft.tuners.lora import LoraLayer
    from torch import Tensor

    from loraloop.records import Probe

PREFIX = "base_model.model."
EXACT, ROUNDED = 1e-3, 5e-2
"""How far a recorded logit may be off, as a share of the largest: in float32, and where 16 or 4 bits round."""


class AdapterValidator:
    """Reads adapters for one base, and refuses those that are not what their manifest says or do not fit.

    PEFT says on a copy of the base without weights which layers an adapter has, of which shape and scaling; the file is
    read once, and what was hashed is what is used.

    Args:
        loaded: The base.
        max_rank: Largest rank of any layer.
    """

    def __init__(self, loaded: LoadedModel, max_rank: int) -> None:
        import torch

        self._loaded, self._max_rank = loaded, max_rank
        with torch.device("meta"):
            self._skeleton = type(loaded.model)(copy.deepcopy(loaded.model.config))

    def read(self, name: str, version: Version) -> LoraAdapter:
        """The adapter in memory, verified as far as is possible without running it.

        Raises:
            ModelError: Says what is wrong with it, and the way out.
        """
        folder, manifest = version.path, version.manifest
        _require_base(name, manifest.base, self._loaded.base)
        tensors = _tensors(folder, manifest)
        layers = self._layers(folder, _config(folder, manifest))
        _require_names(folder, layers, tensors)
        self._require_ranks(name, layers)
        return LoraAdapter(name, {path: self._update(path, layer, tensors) for path, layer in layers.items()})

    def _layers(self, folder: Path, config: LoraConfig) -> Mapping[str, LoraLayer]:
        from peft import inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        skeleton = copy.deepcopy(self._skeleton)
        try:
            inject_adapter_in_model(config, skeleton, "default", low_cpu_mem_usage=True)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise ModelError(f"{folder / CONFIG} does not fit the base: {error}") from error
        found = {path: layer for path, layer in skeleton.named_modules() if isinstance(layer, LoraLayer)}
        foreign = [path for path, layer in found.items() if not layer.lora_A]
        if foreign:
            raise ModelError(f"{folder}: {foreign[0]} is no linear layer, and only these are served; merge the adapter")
        return found

    def _require_ranks(self, name: str, layers: Mapping[str, LoraLayer]) -> None:
        rank = max(int(layer.r["default"]) for layer in layers.values())
        servable.require_rank(name, rank, self._max_rank)

    def _update(self, path: str, layer: LoraLayer, tensors: Mapping[str, Tensor]) -> Update:
        model = self._loaded.model
        place: dict[str, Any] = {"device": model.get_submodule(path).weight.device, "dtype": model.dtype}
        down, up = (tensors[_key(path, side)].to(**place) for side in "AB")
        update = Update(down.T.contiguous(), (up.T * float(layer.scaling["default"])).contiguous())
        if not bool(update.down.isfinite().all() and update.up.isfinite().all()):
            raise ModelError(f"{path}: scaled and in {model.dtype}, its weights are not finite; train it again")
        return update


def require_agreement(name: str, manifest: Manifest, base: Tensor, adapted: Tensor) -> None:
    """Compare an adapter's logits after the probe with those recorded at training, or, without these, with the base's.

    Raises:
        ModelError: It does not answer as it did when it was trained, or answers like the base.
    """
    import torch

    probe = manifest.probe
    if not bool(torch.isfinite(adapted).all()):
        raise ModelError(f"{name} answers a probe with logits that are not finite; train it again")
    if probe is None:
        if torch.equal(base, adapted):
            raise ModelError(f"{name} answers a probe exactly like the base: it changes nothing; train it again")
        return
    off = _off(probe, adapted, ROUNDED if _rounded(manifest.base) else EXACT)
    if off is not None:
        raise ModelError(
            f"{name} does not answer as it did when it was trained: a probe's logit is {off:.3g} off; its "
            "configuration was altered, or model.dtype is coarser than in training: restore it, or register it again"
        )


def _off(probe: Probe, logits: Tensor, share: float) -> float | None:
    import torch

    recorded = torch.tensor(probe.logits)
    off = float((logits[list(probe.tokens)].float().cpu() - recorded).abs().max())
    return off if off > share * max(1.0, float(recorded.abs().max())) else None


def _rounded(base: Base) -> bool:
    return base.dtype != "float32" or base.quantization != "none"


def _require_base(name: str, trained: Base, base: Base) -> None:
    for what in ("sha256", "tokenizer_sha256", "quantization"):
        theirs, ours = getattr(trained, what), getattr(base, what)
        if theirs != ours:
            raise ModelError(
                f"{name} was trained on {trained.name} with {what} {theirs[:12]}, and the base that is served, "
                f"{base.name}, has {ours[:12]}: serve the model that it was trained on, or train a new adapter"
            )

    other = quantisation.mismatch(trained, base)
    if other and base.quantization != "none":
        raise ModelError(
            f"{name} was trained on {trained.name} with {other}: serve it as it was trained on, or train a new adapter"
        )


def _tensors(folder: Path, manifest: Manifest) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = adapter_files.weights(folder)
    data = _bytes(path)
    found = sha256(data)
    if found != manifest.weights_sha256:
        raise ModelError(
            f"{path} has SHA-256 {found[:12]}..., the manifest says {manifest.weights_sha256[:12]}...: it was altered "
            "or cut short; restore it, or register the adapter again"
        )
    try:
        tensors = packing.unpack(load(data))
    except (SafetensorError, ValueError, KeyError) as error:
        raise ModelError(f"{path} is truncated or no safetensors file ({error}); train or copy it again") from error
    broken = [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if broken:
        raise ModelError(f"{path}: {len(broken)} of {len(tensors)} tensors hold NaN or infinity, first {broken[0]}")
    return tensors


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        there = ", ".join(sorted(file.name for file in path.parent.glob("*"))) or "nothing"
        raise ModelError(
            f"{path.parent} lacks {path.name}; it holds {there}. Only safetensors are loaded: register it again"
        ) from error
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error}") from error


def _config(folder: Path, manifest: Manifest) -> LoraConfig:
    """The configuration, from the settings that are understood alone: nothing else of the file reaches PEFT."""
    from peft import LoraConfig

    path = folder / CONFIG
    try:
        values = json.loads(_bytes(path))
        rules = {"peft_type": "LORA", "r": manifest.rank, "lora_alpha": manifest.alpha}
        wrong = [f"{key}={values.get(key)!r}, not {rule!r}" for key, rule in rules.items() if values.get(key) != rule]
        config = LoraConfig(**{key: values[key] for key in servable.SHAPE & values.keys()}, init_lora_weights=False)
    except (ValueError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is no LoRA configuration ({error}); restore it, or register again") from error
    if wrong:
        raise ModelError(f"{path} differs from the manifest: {', '.join(wrong)}; restore it, or register again")
    servable.require_settings(path, values)
    return config


def _require_names(folder: Path, layers: Mapping[str, LoraLayer], tensors: Mapping[str, Tensor]) -> None:
    shapes = {
        _key(path, side): tuple(cast("Tensor", parts["default"].weight).shape)
        for path, layer in layers.items()
        for side, parts in (("A", layer.lora_A), ("B", layer.lora_B))
    }
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found == shapes:
        return
    wrong = {
        "lacks": sorted(shapes.keys() - found.keys()),
        "does not belong with": sorted(found.keys() - shapes.keys()),
        "has the wrong shape in": sorted(name for name in shapes.keys() & found.keys() if shapes[name] != found[name]),
    }
    details = "; ".join(f"{what} {len(names)} tensors, first {names[0]}" for what, names in wrong.items() if names)
    raise ModelError(
        f"{adapter_files.weights(folder)} is not the adapter that {CONFIG} describes: it {details}; register it again"
    )


def _key(path: str, side: str) -> str:
    return f"{PREFIX}{path}.lora_{side}.weight"
