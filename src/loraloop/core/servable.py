"""Which adapters a server loads beside others: the rule of the server, and of the registry before a promotion."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraloop.errors import ModelError

SHAPE = frozenset(
    {"r", "lora_alpha", "target_modules", "exclude_modules", "use_rslora", "rank_pattern", "alpha_pattern",
     "layers_to_transform", "layers_pattern", "fan_in_fan_out"}
)  # fmt: skip
"""PEFT's settings that decide what an adapter answers and that are served."""
TRAINING = frozenset(
    {"peft_type", "task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
     "lora_dropout", "init_lora_weights", "loftq_config", "eva_config", "corda_config", "lora_ga_config",
     "runtime_config", "megatron_core", "qalora_group_size"}
)  # fmt: skip
"""PEFT's settings that decide nothing once an adapter is trained."""


def require_settings(path: Path, values: Mapping[str, Any]) -> None:
    """Check the settings of an adapter.

    Args:
        path: The file that they come from.
        values: PEFT's configuration.

    Raises:
        ModelError: One is set that cannot be served beside other adapters, such as DoRA or trained biases.
    """
    unknown = sorted(key for key, value in values.items() if value and key not in SHAPE | TRAINING)
    unknown = [key for key in unknown if (key, values[key]) != ("bias", "none")]
    if unknown:
        raise ModelError(
            f"{path} sets {', '.join(unknown)}, which cannot be served beside others: merge the adapter into its base, "
            "or train one without"
        )


def require_rank(name: str, rank: int, limit: int, key: str = "serve.max_rank") -> None:
    """Check the largest rank of an adapter's layers.

    Args:
        name: The adapter's.
        rank: Its largest rank.
        limit: The largest that is served.
        key: The setting of the limit.

    Raises:
        ModelError: It is above the limit.
    """
    if rank > limit:
        raise ModelError(f"{name} has rank {rank} and {key}={limit}: raise {key}, or serve a version of a smaller rank")
