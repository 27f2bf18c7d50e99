"""Training that goes on with an adapter that is there: which one, and whether the configuration fits it."""

from __future__ import annotations

import logging
from collections.abc import Set
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError, RegistryError
from loraloop.lora import Lora, linear_layers

log = logging.getLogger(__name__)
PARAM = "continued_from"
"""The run's parameter that names what its training began with."""

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

    from loraloop.records import LoadedModel, Version
    from loraloop.registry.mlflow import MlflowRegistry

OTHERS = "to go on with an interrupted run write resume=FOLDER, and for a new adapter leave continue_from out"
SHAPE = ("r", "alpha", "use_rslora", "use_dora", "bias", "rank_pattern", "alpha_pattern")
"""Keys of ``lora`` that decide an adapter's shape, beside its targets."""


def start(registry: MlflowRegistry, asked: str, skeleton: LoadedModel, lora: Lora) -> Version:
    """The version that training goes on with.

    Args:
        registry: Where versions are.
        asked: As ``stage=evaluate adapter=`` takes it.
        skeleton: The base's shape and tokenizer.
        lora: The shape that the configuration gives to the adapter.

    Raises:
        RegistryError: There is no such version.
        ConfigError: The configuration is of an adapter of another shape, or of a base that is quantised otherwise.
    """
    from peft import LoraConfig

    try:
        version = registry.resolve(asked)
    except RegistryError as error:
        raise RegistryError(f"continue_from={asked}: {error}; {OTHERS}") from None
    trained, now = version.manifest.base.quantization, skeleton.base.quantization
    if trained != now:
        double = str(trained.endswith("-double")).lower()
        raise ConfigError(
            f"continue_from={asked} was trained on a base with quantization {trained}, and model has {now}: an adapter "
            "corrects the errors of the weights that it was trained on. Write model.quantization="
            f"{trained.partition('-')[0]} model.double_quantization={double}; {OTHERS}"
        )
    saved: LoraConfig = LoraConfig.from_pretrained(str(version.path))
    if saved.modules_to_save:
        raise ConfigError(
            f"continue_from={asked} also holds whole layers ({', '.join(saved.modules_to_save)}), which lora does not "
            "train: begin with an adapter of low-rank updates alone"
        )
    overrides = _differences(saved, lora, skeleton.model)
    if lora.mutates_base:
        overrides.append("lora.init=default")
    if overrides:
        raise ConfigError(
            f"continue_from={asked} is an adapter of another shape than lora says: write {' '.join(overrides)}; "
            f"{OTHERS}"
        )
    return version


def require_base(asked: str, version: Version, loaded: LoadedModel) -> None:
    """Check that the adapter that training goes on with was trained on this base.

    Raises:
        ConfigError: It was trained on another one.
    """
    from loraloop.errors import ModelError
    from loraloop.registry import manifest as manifests

    try:
        manifests.verify_adapter(loaded.base, version.manifest)
    except ModelError as error:
        raise ConfigError(f"continue_from={asked}: {error}; {OTHERS}") from None


def name(version: Version) -> str:
    """How a version is named in what began with it; a folder that is not registered by its weights."""
    if version.number:
        return f"models:/{version.name}/{version.number}"
    return f"weights {version.manifest.weights_sha256}"


def tell(version: Version) -> None:
    """Log what training goes on with, and what begins anew."""
    log.info("the start is %s: its weights go on, the optimizer and the schedule begin anew", name(version))


def _differences(saved: LoraConfig, lora: Lora, model: PreTrainedModel) -> list[str]:
    """The overrides that make ``lora`` the shape of a saved adapter."""
    wanted = lora.peft_config()
    peft = {"alpha": "lora_alpha"}
    pairs = {key: (getattr(saved, peft.get(key, key)), getattr(wanted, peft.get(key, key))) for key in SHAPE}
    if lora.alpha is None and pairs["alpha"][0] == lora.alpha_over_r * pairs["r"][0]:
        del pairs["alpha"]  # it follows from the rank
    found = [f"lora.{key}={has}" for key, (has, want) in pairs.items() if has != want]
    layers = set(linear_layers(model))
    targets = _targeted(saved, layers)
    if targets != _targeted(wanted, layers):
        found.append(f"lora.targets={_short(targets, layers)}")
    return found


def _targeted(config: LoraConfig, layers: Set[str]) -> Set[str]:
    """The layers that PEFT adapts under a configuration, whose targets may be a regular expression or names."""
    from peft.tuners.tuners_utils import check_target_module_exists
    from peft.utils import INCLUDE_LINEAR_LAYERS_SHORTHAND

    if config.target_modules == INCLUDE_LINEAR_LAYERS_SHORTHAND:
        return layers
    return {name for name in layers if check_target_module_exists(config, name)}


def _short(targets: Set[str], layers: Set[str]) -> str:
    """The layers as ``lora.targets`` takes them: the ends of their names where these mean no other layer."""
    if targets == layers:
        return "all-linear"
    ends = {name.rpartition(".")[2] for name in targets}
    told = ends if {name for name in layers if name.rpartition(".")[2] in ends} == targets else targets
    return f"[{','.join(sorted(told))}]"
