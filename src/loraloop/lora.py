"""The adapter's shape: rank, scaling, targets and initialisation of a LoRA (arXiv 2106.09685), through PEFT."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from loraloop.core.part import part
from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedModel

Shape = tuple[int, int]
Rank = Annotated[int, Field(ge=1)]
Init = Annotated[str, Field(pattern=r"^(default|gaussian|orthogonal|olora|pissa|pissa_niter_[1-9]\d*)$")]


@part
class Lora:
    """A low-rank adapter of the base model's linear layers.

    Attributes:
        r: Rank of the update of every target.
        alpha_over_r: The scaling ``alpha / r`` when ``alpha`` is null.
        alpha: The scaling's numerator; null means ``alpha_over_r * r``.
        dropout: Probability of zeroing an input of the adapter while training.
        targets: Names (or dotted endings of names) of the linear layers to adapt, or ``all-linear``.
        bias: Which bias vectors train along.
        use_rslora: Scale by ``alpha / sqrt(r)`` instead of ``alpha / r`` (arXiv 2312.03732).
        use_dora: Train magnitude and direction apart (arXiv 2402.09353).
        rank_pattern: Other ranks by layer name or regular expression.
        alpha_pattern: Other alphas by layer name or regular expression.
        init: PEFT's initialisation: ``default`` (B = 0), ``gaussian``, ``orthogonal``, ``olora`` (arXiv 2406.01775),
            ``pissa`` or ``pissa_niter_N`` (arXiv 2404.02948).
    """

    r: Rank = 16
    alpha_over_r: Annotated[float, Field(gt=0)] = 2.0
    alpha: Annotated[float, Field(gt=0)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.05
    targets: Literal["all-linear"] | Annotated[tuple[str, ...], Field(min_length=1)] = (
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
    )
    bias: Literal["none", "all", "lora_only"] = "none"
    use_rslora: bool = False
    use_dora: bool = False
    rank_pattern: dict[str, Rank] = Field(default_factory=dict)
    alpha_pattern: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    init: Init = "default"

    @model_validator(mode="after")
    def _combinations(self) -> Lora:
        if self.init == "orthogonal" and self.r % 2:
            raise ValueError(f"init: orthogonal needs an even rank, r is {self.r}: choose r={self.r + 1}")
        if self.mutates_base and (self.use_dora or self.bias != "none" or (self.use_rslora and self._patterns)):
            raise ValueError(
                f"init: {self.init} changes the base, and PEFT cannot turn it back into a plain LoRA together with "
                "use_dora, with bias or with rank/alpha patterns under use_rslora: leave these out or use init: default"
            )
        return self

    @property
    def _patterns(self) -> bool:
        return bool(self.rank_pattern or self.alpha_pattern)

    @property
    def effective_alpha(self) -> float:
        """The alpha in force."""
        return self.alpha_over_r * self.r if self.alpha is None else self.alpha

    @property
    def mutates_base(self) -> bool:
        """Whether the initialisation moves a part of the base weights into the adapter (PiSSA, OLoRA)."""
        return self.init.startswith(("pissa", "olora"))

    def peft_config(self) -> LoraConfig:
        """PEFT's configuration of this adapter."""
        from peft import LoraConfig

        alpha = self.effective_alpha
        options: dict[str, Any] = {
            "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
            "target_modules": self.targets if isinstance(self.targets, str) else list(self.targets),
            "init_lora_weights": True if self.init == "default" else self.init,
        }
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=self.r,
            lora_dropout=self.dropout,
            bias=self.bias,
            use_rslora=self.use_rslora,
            use_dora=self.use_dora,
            rank_pattern=dict(self.rank_pattern),
            alpha_pattern=dict(self.alpha_pattern),
            **options,
        )

    def check_model(self, model: PreTrainedModel) -> None:
        """Check the adapter against a base model, which may be on the meta device.

        Raises:
            ConfigError: A target or pattern that names no linear layer, or a rank above a layer's smaller dimension.
        """
        layers = linear_layers(model)
        targets = self._targeted(layers)
        problems = self._unknown_targets(layers) + self._unknown_patterns(targets) + self._large_ranks(targets)
        if self.mutates_base and getattr(model, "is_loaded_in_4bit", False):
            problems.append(
                f"lora.init={self.init} changes base weights, which NF4 cannot hold exactly: use init=default"
            )
        if problems:
            raise ConfigError(*problems)

    def trainable_parameters(self, model: PreTrainedModel) -> int:
        """How many parameters this adapter trains on ``model``, from shapes alone.

        ``r * (inputs + outputs)`` per target, plus DoRA's magnitudes and the biases that ``bias`` lets train.
        """
        layers = linear_layers(model)
        targets = self._targeted(layers)
        count = sum(
            self._rank(name) * (inputs + outputs) + (outputs if self.use_dora else 0)
            for name, (inputs, outputs) in targets.items()
        )
        if self.bias == "none":
            return count
        owners = {f"{name}.bias" for name in targets}
        biases = ((name, value) for name, value in model.named_parameters() if name.endswith("bias"))
        return count + sum(value.numel() for name, value in biases if self.bias == "all" or name in owners)

    def _rank(self, layer: str) -> int:
        keys = (key for key in self.rank_pattern if _matches(key, layer))
        return self.rank_pattern.get(next(keys, ""), self.r)

    def _targeted(self, layers: dict[str, Shape]) -> dict[str, Shape]:
        if isinstance(self.targets, str):
            return layers
        return {
            name: shape for name, shape in layers.items() if any(f".{name}".endswith(f".{t}") for t in self.targets)
        }

    def _unknown_targets(self, layers: dict[str, Shape]) -> list[str]:
        if isinstance(self.targets, str):
            return []
        names = sorted({name.rpartition(".")[2] for name in layers})
        return [
            f"lora.targets holds {target!r}, which is no linear layer of the model{nearest(target, names)}; "
            f"there are {', '.join(names)}"
            for target in self.targets
            if not any(f".{name}".endswith(f".{target}") for name in layers)
        ]

    def _unknown_patterns(self, targets: dict[str, Shape]) -> list[str]:
        patterns = [("rank_pattern", key) for key in self.rank_pattern]
        patterns += [("alpha_pattern", key) for key in self.alpha_pattern]
        return [
            f"lora.{field} holds {key!r}, which matches no targeted layer; a key is a layer's name or a regular "
            f"expression for its end, such as {next(iter(targets), 'q_proj')!r}"
            for field, key in patterns
            if not any(_matches(key, name) for name in targets)
        ]

    def _large_ranks(self, targets: dict[str, Shape]) -> list[str]:
        too_large = [(name, shape) for name, shape in targets.items() if self._rank(name) > min(shape)]
        if not too_large:
            return []
        name, shape = min(too_large, key=lambda item: min(item[1]))
        return [
            f"lora.r={self._rank(name)} is above the smaller dimension of {len(too_large)} targeted layers, such as "
            f"{name} ({shape[0]} -> {shape[1]}); a LoRA's rank cannot exceed it: choose at most {min(shape)}"
        ]


def linear_layers(model: PreTrainedModel) -> dict[str, Shape]:
    """Inputs and outputs of every linear layer by name, the output head excluded (as PEFT's ``all-linear`` does)."""
    import torch
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    shapes: dict[str, Shape] = {}
    for name, module in model.named_modules():
        if module is head:
            continue
        if isinstance(module, torch.nn.Linear):
            shapes[name] = (module.in_features, module.out_features)
        elif isinstance(module, Conv1D):
            shapes[name] = (int(module.weight.shape[0]), int(module.weight.shape[1]))
    return shapes


def _matches(pattern: str, layer: str) -> bool:
    """PEFT's rule for the keys of rank and alpha patterns (``peft.utils.other.get_pattern_key``)."""
    return re.match(rf"(.*\.)?({pattern})$", layer) is not None
