"""Publishing as GGUF, as llama.cpp and what is built on it load a model or a LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from loraloop.core.extras import require
from loraloop.core.part import part
from loraloop.errors import ConfigError
from loraloop.publish import export, gguf_lora, gguf_model, gguf_tokenizer, merging
from loraloop.records import Version

if TYPE_CHECKING:
    from loraloop.protocols import BaseLoader

BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32}
EXTRA = "gguf"


@part
class Gguf:
    """Writes a version as GGUF to ``path/NAME-vN-gguf``: its LoRA alone, or merged into its base.

    Attributes:
        merge: Write base and adapter as one model, with tokenizer and chat template; else the LoRA alone, which needs
            the base as GGUF beside it.
        dtype: Of the matrices; ``q8_0`` is for merged models.
        from_nf4: Also export an adapter that was trained on an NF4 base, for the unquantised weights.
    """

    path: Path = Path("published")
    merge: bool = False
    dtype: Literal["f32", "f16", "q8_0"] = "f16"
    from_nf4: bool = False

    def check(self) -> None:
        """See that the library is there and that the form exists.

        Raises:
            ConfigError: ``path`` is a file, or a LoRA alone is asked for in ``q8_0``.
            MissingDependencyError: ``gguf`` is not installed.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"publish.path={self.path} must be a folder, but it is a file; choose another")
        if self.dtype == "q8_0" and not self.merge:
            raise ConfigError("publish.dtype=q8_0 is for merged models: add publish.merge=true, or take f16")
        require("gguf", EXTRA)

    def publish(
        self, version: Version, metrics: Mapping[str, float] | None = None, base: BaseLoader | None = None
    ) -> str:
        """Write a version as GGUF; an equal export is left as it is.

        Args:
            version: A registered, verified version.
            metrics: What the adapter scored before the export, for the card.
            base: Loads the version's base.

        Returns:
            The folder.

        Raises:
            RegistryError: The version may not be exported, or the folder holds something else; it is as it was.
            ConfigError: llama.cpp would not know the architecture or the tokenizer, or the disk is too small.
        """
        assert base is not None  # noqa: S101 (stage=publish gives it)
        export.require_exportable(version, self.from_nf4)
        name = f"{version.name}-v{version.number}"
        form = "gguf" if self.merge else "gguf-lora"
        target = self.path / f"{name}-{form}-{self.dtype}"
        planned = export.of(version, form, self.dtype)
        if not target.exists():
            self._require(version, base)

        def fill(folder: Path) -> export.Export:
            made = self._write(folder / f"{name}-{self.dtype}.gguf", version, base, planned)
            (folder / export.CARD).write_text(merging.card(version, planned, metrics or {}, self._usage(name)), "utf8")
            return made

        export.write(target, planned, fill)
        return str(target)

    def _require(self, version: Version, base: BaseLoader) -> None:
        skeleton = base.skeleton()
        gguf_model.architecture(skeleton.model.config)
        if self.merge:
            gguf_tokenizer.pre_tokenizer(skeleton.tokenizer)
            count = int(merging.parameters(skeleton) * BYTES[self.dtype])
        else:
            gguf_lora.require_plain(version.path)
            count = sum(each.stat().st_size for each in version.path.iterdir())
        export.require_disk(self.path, count, f"{version.name} in {self.dtype}")

    def _write(self, file: Path, version: Version, base: BaseLoader, planned: export.Export) -> export.Export:
        if not self.merge:
            gguf_lora.write(file, version.path, base.skeleton().model.config, self.dtype)
            return planned
        loaded = base.load()
        model, changed = merging.merge(loaded, version.path, "float32")
        gguf_model.write(file, replace(loaded, model=model), self.dtype)
        return replace(planned, changed=changed)

    def _usage(self, name: str) -> str:
        file = f"{name}-{self.dtype}.gguf"
        command = f"llama-server -m {file}" if self.merge else f"llama-server -m BASE.gguf --lora {file}"
        return f"```\n{command}\n```"
