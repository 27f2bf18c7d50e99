"""Publishing one model: the adapter merged into its base, with tokenizer and the chat template of the training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from loraloop.core.part import part
from loraloop.errors import ConfigError
from loraloop.publish import card, export, merging, template
from loraloop.records import Export, Score, Version

if TYPE_CHECKING:
    from loraloop.protocols import BaseLoader, Gate

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@part
class Merged:
    """Writes a version merged into its base to ``path/NAME-vN-merged``, as transformers and vLLM load a model.

    Attributes:
        dtype: Of the weights; ``auto`` is the one in which the adapter was trained.
        from_nf4: Merge an adapter that was trained on an NF4 base into the unquantised weights, and not into those that
            NF4 makes of them.
        min_agreement: Share of the recorded answers that the export must give again; ``None`` is 0.98, and 0.9 for an
            adapter of a 4-bit base. 0 publishes it also where nothing was recorded.
        rows: Recorded answers that are compared, evenly spread.
        license: The Hub's name of a licence, for the card.
    """

    path: Path = Path("published")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    from_nf4: bool = False
    min_agreement: Annotated[float, Field(ge=0, le=1)] | None = None
    rows: Annotated[int, Field(ge=1)] = 64
    license: str | None = None

    def check(self) -> None:
        """See that ``path`` can hold folders.

        Raises:
            ConfigError: It is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"publish.path={self.path} must be a folder, but it is a file; choose another")

    def publish(
        self,
        version: Version,
        scores: Score | None = None,
        base: BaseLoader | None = None,
        gate: Gate | None = None,
    ) -> str:
        """Merge a version, write the model and let the gate measure it; an equal export is left as it is.

        Args:
            version: A registered, verified version.
            scores: What the adapter scored before it was merged, for the card.
            base: Loads the version's base.
            gate: Measures the model before it appears.

        Returns:
            The folder.

        Raises:
            RegistryError: The version may not be merged, or the folder holds something else; it is as it was.
            ConfigError: The disk is too small.
            ArtefactError: The model answers differently; nothing was published.
        """
        assert base is not None  # noqa: S101 (stage=publish gives it)
        assert gate is not None  # noqa: S101 (likewise)
        export.require_exportable(version)
        dtype = version.manifest.base.dtype if self.dtype == "auto" else self.dtype
        target = self.path / f"{version.name}-v{version.number}-merged"
        planned = export.of(version, "merged", dtype, export.merged_into(version, self.from_nf4))

        def fill(folder: Path) -> Export:
            made = self._write(folder, version, base, planned)
            measured = gate(folder, made)
            text = card.of_export(version, made, scores, measured, _USAGE, self.license)
            (folder / export.CARD).write_text(text, "utf8")
            return made

        if not target.exists():
            count = merging.parameters(base.skeleton()) * BYTES[dtype]
            export.require_disk(target, count, f"{version.name} in {dtype}")
        export.write(target, planned, fill)
        return str(target)

    def _write(self, folder: Path, version: Version, base: BaseLoader, planned: Export) -> Export:
        loaded = base.load(quantised=planned.merged_into == "dequantised")
        model, changed = merging.merge(loaded, version.path, planned.dtype)
        template.give(loaded.tokenizer, version.manifest)
        model.save_pretrained(folder)
        loaded.tokenizer.save_pretrained(folder)
        return replace(planned, changed=changed)


_USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```"""
