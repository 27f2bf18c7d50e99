"""An adapter's weights and configuration in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import adapter_files, packing

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA.

    Attributes:
        tensors: By PEFT's names.
        config: ``adapter_config.json``.
        storage: How the weights are to be kept.
    """

    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    storage: packing.Storage = "plain"

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """Read an adapter's folder.

        Raises:
            ModelError: Its weights are damaged.
        """
        return cls(
            tensors=adapter_files.tensors(folder), config=json.loads((folder / adapter_files.CONFIG).read_bytes())
        )

    @property
    def rank(self) -> int:
        """The largest rank of its layers."""
        return max(int(tensor.shape[0]) for name, tensor in self.tensors.items() if ".lora_A." in name)

    def changed(self, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> Adapter:
        """The same with other weights."""
        return Adapter(tensors=tensors, config=config, storage=self.storage)

    def kept(self, storage: packing.Storage) -> Adapter:
        """The same, to be kept in another way."""
        return Adapter(tensors=self.tensors, config=self.config, storage=storage)

    def write(self, folder: Path) -> int:
        """Write the two files into a folder.

        Returns:
            The bytes of the weights.
        """
        config = json.dumps(self.config, indent=2, sort_keys=True).encode() + b"\n"
        adapter_files.write(folder, self.tensors, config, self.storage)
        return adapter_files.weights(folder).stat().st_size
