"""The base of a version, found by what its manifest says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from loraloop.model.causal import CausalLM
    from loraloop.records import LoadedModel, Version


@dataclass(frozen=True, slots=True)
class VersionBase:
    """Loads the base of a version; nothing is loaded before it is asked for."""

    version: Version

    def skeleton(self) -> LoadedModel:
        """Its shape and tokenizer, without weights.

        Raises:
            ConfigError: The base cannot be found on this machine.
        """
        model = self._model()
        model.check()
        return model.skeleton()

    def load(self, quantised: bool = False) -> LoadedModel:
        """Load it in float32, so that a merge is rounded once, and see that it is the same as then.

        Args:
            quantised: Give the weights that the adapter was trained on: those that the quantisation makes of the
                stored ones.

        Raises:
            ModelError: It cannot be loaded, or has other weights or another tokenizer.
        """
        from loraloop.model import nf4
        from loraloop.registry import manifest as manifests

        loaded = self._model(quantised).load()
        manifests.verify_adapter(loaded.base, self.version.manifest)
        if quantised:
            nf4.dequantize(loaded.model)
        return loaded

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer alone."""
        return self._model().tokenizer()[1]

    def folder(self) -> Path:
        """Configuration, safetensors and tokenizer, for a program that quantises the weights as the training did.

        Raises:
            ModelError: The training quantised them in a way that is not this machine's.
        """
        from loraloop.model import nf4
        from loraloop.registry import manifest as manifests

        trained = self.version.manifest.base
        if trained.quantization != "none":
            here = replace(trained, quantizer=nf4.QUANTIZER, block_size=nf4.usual_block_size())
            manifests.verify_adapter(here, self.version.manifest)
        return self._model().folder()

    def gguf(self, scratch: Path) -> Path:
        """The base as GGUF: the file that it was read from, or one that is written into ``scratch`` in ``f16``.

        Raises:
            ConfigError: The disk of ``scratch`` is too small, or the base cannot be found on this machine.
        """
        from loraloop.model import gguf
        from loraloop.publish import export, gguf_model, merging

        name = self.version.manifest.base.name
        found = gguf.find(name) if name.startswith(gguf.PREFIX) else None
        if found is None:
            found = scratch / "base.gguf"
            count = 2 * merging.parameters(self.skeleton()) + export.SLACK
            other = "name the base as GGUF: publish.base=FILE, in stage=verify runtime.base=FILE"
            export.require_room(scratch.parent, count, f"{name} in f16", "TMPDIR", other)
            gguf_model.write(found, self.load(), "f16")
        return found

    def _model(self, quantised: bool = False) -> CausalLM:
        from loraloop.model import gguf
        from loraloop.model.causal import CausalLM

        base = self.version.manifest.base
        # The revision of a GGUF file is its hash, which no hub knows.
        revision = None if base.name.startswith(gguf.PREFIX) else base.revision
        if not quantised:
            return CausalLM(name=base.name, revision=revision, dtype="float32")
        # The stored weights are rounded to the training's type before they are quantised.
        kind: Any = base.dtype
        double = base.quantization == "nf4-double"
        return CausalLM(name=base.name, revision=revision, dtype=kind, quantization="nf4", double_quantization=double)
