"""One adapter out of several of one base, by PEFT's weighted combinations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import Field, model_validator

from loraloop.core import adapter_files
from loraloop.core.part import part
from loraloop.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "combined"


@part
class Combination:
    """A weighted sum of LoRA's matrices, layer by layer, by PEFT's ``add_weighted_adapter``.

    The matrices A and B are summed apart, so the result also holds products of one adapter's A with another's B: it is
    no exact sum of the updates.

    Attributes:
        kind: ``linear`` sums; ``ties`` keeps each matrix's largest values and those of the commoner sign (TIES, arXiv
            2306.01708); ``dare_ties`` drops values at random instead of the smallest (DARE, arXiv 2311.03099).
        weights: Of the adapters, in their order; ``None``: equal shares of 1.
        density: Share of the values that is kept, 0 to 1; ``linear`` keeps all and has none.
        seed: Draws what ``dare_ties`` drops.
    """

    kind: Literal["linear", "ties", "dare_ties"] = "linear"
    weights: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] | None = None
    density: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _density(self) -> Combination:
        if (self.kind == "linear") != (self.density is None):
            rule = "keeps every value: leave density null" if self.kind == "linear" else "needs a share: density=0.5"
            raise ValueError(f"density: {self.density} with kind={self.kind}, which {rule}")
        return self

    def of(self, count: int) -> tuple[float, ...]:
        """The weights of ``count`` adapters.

        Raises:
            ConfigError: There are others.
        """
        if self.weights is None:
            return (1 / count,) * count
        if len(self.weights) != count:
            raise ConfigError(
                f"combine.weights={list(self.weights)} are {len(self.weights)} weights for {count} adapters: give "
                "one for each, in their order"
            )
        return self.weights

    def combine(self, model: PreTrainedModel, folders: Sequence[Path], target: Path) -> None:
        """Write the combination in PEFT's layout.

        Args:
            model: The base; afterwards it carries the adapters.
            folders: Of the adapters.
            target: Folder that is made.

        Raises:
            ModelError: PEFT refuses, or an adapter is damaged.
        """
        import torch

        weights = list(self.of(len(folders)))
        names = [f"part{place}" for place in range(len(folders))]
        carrier = self._carrier(model, folders, names)
        # PEFT writes the sum with alpha = r and the first adapter's other settings: rsLoRA would scale it again.
        carrier.peft_config[names[0]].use_rslora = False
        with torch.random.fork_rng(), adapter_files.reading(folders[0]):
            torch.manual_seed(self.seed)
            carrier.base_model.add_weighted_adapter(names, weights, NAME, self.kind, density=self.density)
        tensors = self._tensors(carrier)
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise ModelError(
                f"the combination by {self.kind} with weights {weights} is not finite: take smaller weights"
            )
        carrier.save_pretrained(str(target), selected_adapters=[NAME], save_embedding_layers=False)
        for path in (target / NAME).iterdir():
            path.rename(target / path.name)
        (target / NAME).rmdir()

    def _carrier(self, model: PreTrainedModel, folders: Sequence[Path], names: Sequence[str]) -> Any:
        from peft import PeftModel

        carrier: Any = None
        for folder, name in zip(folders, names, strict=True):
            with adapter_files.reading(folder), adapter_files.plain(folder) as read, _kept_random_state():
                if carrier is None:
                    carrier = PeftModel.from_pretrained(model, str(read), adapter_name=name, use_safetensors=True)
                else:
                    carrier.load_adapter(str(read), adapter_name=name, use_safetensors=True)
        return carrier

    def _tensors(self, carrier: Any) -> dict[str, Any]:
        from peft import get_peft_model_state_dict

        return cast(
            "dict[str, Any]", get_peft_model_state_dict(carrier, adapter_name=NAME, save_embedding_layers=False)
        )


def _kept_random_state() -> Any:
    """PEFT draws a new adapter's weights before it reads the saved ones."""
    import torch

    return torch.random.fork_rng()
