"""Publishing as GGUF, as llama.cpp and what is built on it load a model or a LoRA."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from loraloop.core.extras import require
from loraloop.core.part import part
from loraloop.errors import ConfigError, RegistryError
from loraloop.publish import card, export, gguf_lora, gguf_model, gguf_quants, gguf_tokenizer, merging, ollama, template
from loraloop.records import Export, Score, Version

if TYPE_CHECKING:
    from loraloop.protocols import BaseLoader, Gate

BYTES = {"f32": 4.0, "f16": 2.0, "q8_0": 34 / 32, "q4_k_m": 0.7}
"""A parameter takes, at most."""
ROUNDING = {"f32": "float32", "f16": "float16", "q8_0": "float16", "q4_k_m": "float16"}
"""The type in which it is seen whether a merge changes anything; 4 and 8 bits keep less than that."""


@part
class Gguf:
    """Writes a version as GGUF to ``path/NAME-vN-gguf``: its LoRA alone, or merged into its base.

    Attributes:
        merge: Write base and adapter as one model, with tokenizer and chat template; else the LoRA alone, which needs
            the base as GGUF beside it.
        dtype: Of the matrices; ``q8_0`` and ``q4_k_m`` are for merged models.
        from_nf4: Take an adapter that was trained on an NF4 base for the unquantised weights, and not for those that
            NF4 makes of them; a LoRA alone has no others.
        min_agreement: Share of the recorded answers that the export must give again; ``None`` is 0.98, and 0.9 where
            adapter or file is of 4 bits. 0 publishes it also where nothing was recorded.
        rows: Recorded answers that are compared, evenly spread.
        base: The base as GGUF, beside which a LoRA alone is measured; ``None``: the file that the base was read from,
            or one that is written for the occasion in ``f16``.
        license: The Hub's name of a licence, for the card.
    """

    path: Path = Path("published")
    merge: bool = False
    dtype: Literal["f32", "f16", "q8_0", "q4_k_m"] = "f16"
    from_nf4: bool = False
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    rows: Annotated[int, Field(ge=1)] = 64
    base: Path | None = None
    license: str | None = None

    def check(self) -> None:
        """See that the libraries are there and that the form exists.

        Raises:
            ConfigError: ``path`` is a file, ``base`` is none, or a LoRA alone is asked for in 4 or 8 bits.
            MissingDependencyError: ``gguf`` is not installed, or ``xllamacpp``, by which the export is measured.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"publish.path={self.path} must be a folder, but it is a file; choose another")
        if self.base is not None and not self.base.is_file():
            raise ConfigError(f"publish.base={self.base} is no file: name the base as GGUF")
        if self.dtype in ("q8_0", "q4_k_m") and not self.merge:
            raise ConfigError(f"publish.dtype={self.dtype} is for merged models: add publish.merge=true, or take f16")
        gguf_quants.check(self.dtype)
        if self.min_agreement != 0:
            require("xllamacpp", "gguf")

    def publish(
        self,
        version: Version,
        scores: Score | None = None,
        base: BaseLoader | None = None,
        gate: Gate | None = None,
    ) -> str:
        """Write a version as GGUF and let the gate measure it; an equal export is left as it is.

        Args:
            version: A registered, verified version.
            scores: What the adapter scored before the export, for the card.
            base: Loads the version's base.
            gate: Measures the file before it appears.

        Returns:
            The folder.

        Raises:
            RegistryError: The version may not be exported, or the folder holds something else; it is as it was.
            ConfigError: llama.cpp would not know the architecture or the tokenizer, or the disk is too small.
            ArtefactError: The export answers differently; nothing was published.
        """
        assert base is not None  # noqa: S101 (stage=publish gives it)
        assert gate is not None  # noqa: S101 (likewise)
        export.require_exportable(version)
        name = f"{version.name}-v{version.number}"
        form = "gguf" if self.merge else "gguf-lora"
        target = self.path / f"{name}-{form}-{self.dtype}"
        into = export.merged_into(version, self.from_nf4) if self.merge else None
        planned = export.of(version, form, self.dtype, into)
        if not target.exists():
            self._require(version, base, target)

        def fill(folder: Path) -> Export:
            made = self._write(folder, f"{name}-{self.dtype}.gguf", version, base, planned)
            measured = gate(folder, made)
            text = card.of_export(version, made, scores, measured, self._usage(name, version), self.license)
            (folder / export.CARD).write_text(text, "utf8")
            return made

        export.write(target, planned, fill)
        return str(target)

    def _require(self, version: Version, base: BaseLoader, target: Path) -> None:
        skeleton = base.skeleton()
        gguf_model.architecture(skeleton.model.config)
        if self.merge:
            gguf_tokenizer.pre_tokenizer(skeleton.tokenizer)
            count = int(merging.parameters(skeleton) * BYTES[self.dtype])
        else:
            _require_unquantised(version, self.from_nf4)
            gguf_lora.require_plain(version.path)
            count = sum(each.stat().st_size for each in version.path.iterdir())
        export.require_disk(target, count, f"{version.name} in {self.dtype}")

    def _write(self, folder: Path, name: str, version: Version, base: BaseLoader, planned: Export) -> Export:
        loaded = base.load(quantised=planned.merged_into == "dequantised") if self.merge else base.skeleton()
        template.give(loaded.tokenizer, version.manifest)
        text = ollama.modelfile(name, version.manifest, loaded.tokenizer, adapter=not self.merge)
        (folder / ollama.FILE).write_text(text, "utf8")
        if not self.merge:
            gguf_lora.write(folder / name, version.path, loaded.model.config, self.dtype)
            own = template.of_training(version.manifest)
            if own:
                (folder / template.FILE).write_text(own, "utf8")
            return planned
        model, changed = merging.merge(loaded, version.path, "float32", ROUNDING[self.dtype])
        gguf_model.write(folder / name, replace(loaded, model=model), self.dtype)
        return replace(planned, changed=changed)

    def _usage(self, name: str, version: Version) -> str:
        file = f"{name}-{self.dtype}.gguf"
        command = f"llama-server --jinja -m {file}"
        if not self.merge:
            own = f" --chat-template-file {template.FILE}" if template.of_training(version.manifest) else ""
            command = f"llama-server --jinja -m BASE.gguf --lora {file}{own}"
        return f"```\n{command}\nollama create {name} -f {ollama.FILE}\n```"


def _require_unquantised(version: Version, from_nf4: bool) -> None:
    base = version.manifest.base
    if base.quantization != "none" and not from_nf4:
        raise RegistryError(
            f"{version.name} version {version.number} was trained on {base.name} in {base.quantization}, and a LoRA "
            "alone stands beside a base that is quantised otherwise or not at all, on which it answers differently: "
            "set publish.merge=true, which merges it into the weights that it was trained on, or publish.from_nf4=true"
        )
