"""Publishing one model: the adapter merged into its base, with tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from loraloop.core.part import part
from loraloop.errors import ConfigError
from loraloop.publish import export, merging
from loraloop.records import Version

if TYPE_CHECKING:
    from loraloop.protocols import BaseLoader

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


@part
class Merged:
    """Writes a version merged into its base to ``path/NAME-vN-merged``, as transformers and vLLM load a model.

    Attributes:
        dtype: Of the weights; ``auto`` is the one in which the adapter was trained.
        from_nf4: Merge an adapter that was trained on an NF4 base into the unquantised weights.
    """

    path: Path = Path("published")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    from_nf4: bool = False

    def check(self) -> None:
        """See that ``path`` can hold folders.

        Raises:
            ConfigError: It is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"publish.path={self.path} must be a folder, but it is a file; choose another")

    def publish(
        self, version: Version, metrics: Mapping[str, float] | None = None, base: BaseLoader | None = None
    ) -> str:
        """Merge a version and write the model; an equal export is left as it is.

        Args:
            version: A registered, verified version.
            metrics: What the adapter scored before it was merged, for the card.
            base: Loads the version's base.

        Returns:
            The folder.

        Raises:
            RegistryError: The version may not be merged, or the folder holds something else; it is as it was.
            ConfigError: The disk is too small.
        """
        assert base is not None  # noqa: S101 (stage=publish gives it)
        export.require_exportable(version, self.from_nf4)
        dtype = version.manifest.base.dtype if self.dtype == "auto" else self.dtype
        target = self.path / f"{version.name}-v{version.number}-merged"
        planned = export.of(version, "merged", dtype)

        def fill(folder: Path) -> export.Export:
            loaded = base.load()
            model, changed = merging.merge(loaded, version.path, dtype)
            model.save_pretrained(folder)
            loaded.tokenizer.save_pretrained(folder)
            (folder / export.CARD).write_text(merging.card(version, planned, metrics or {}, _USAGE), "utf8")
            return replace(planned, changed=changed)

        if not target.exists():
            export.require_disk(
                self.path, merging.parameters(base.skeleton()) * BYTES[dtype], f"{version.name} in {dtype}"
            )
        export.write(target, planned, fill)
        return str(target)


_USAGE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("FOLDER", dtype="auto")
tokenizer = AutoTokenizer.from_pretrained("FOLDER")
```"""
