"""Publishing a version: alone, or with the base that its manifest names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loraloop.model.causal import CausalLM
    from loraloop.protocols import Publisher
    from loraloop.records import LoadedModel, Version


def put(publisher: Publisher, version: Version, scores: Mapping[str, float]) -> str:
    """Publish a version; returns the address.

    Raises:
        RegistryError: The place cannot be reached or holds something else, or the version may not be published so.
        ConfigError: The base cannot be found on this machine, or the disk is too small.
    """
    from loraloop.publish.gguf import Gguf
    from loraloop.publish.merged import Merged

    if isinstance(publisher, Merged | Gguf):
        return publisher.publish(version, scores, VersionBase(version))
    return publisher.publish(version, scores)


@dataclass(frozen=True, slots=True)
class VersionBase:
    """Loads the unquantised base of a version; nothing is loaded before it is asked for."""

    version: Version

    def skeleton(self) -> LoadedModel:
        """Its shape and tokenizer, without weights.

        Raises:
            ConfigError: The base cannot be found on this machine.
        """
        model = self._model()
        model.check()
        return model.skeleton()

    def load(self) -> LoadedModel:
        """Load it in float32, so that a merge is rounded once, and see that it is the same as then.

        Raises:
            ModelError: It cannot be loaded, or has other weights or another tokenizer.
        """
        from loraloop.registry import manifest as manifests

        loaded = self._model().load()
        manifests.verify_adapter(loaded.base, self.version.manifest)
        return loaded

    def _model(self) -> CausalLM:
        from loraloop.model import gguf
        from loraloop.model.causal import CausalLM

        base = self.version.manifest.base
        # The revision of a GGUF file is its hash, which no hub knows.
        revision = None if base.name.startswith(gguf.PREFIX) else base.revision
        return CausalLM(name=base.name, revision=revision, dtype="float32")
