"""The config group ``source=registry``: a dataset of LLaMA-Factory's ``dataset_info.json``, read as it stands."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Annotated

from pydantic import Field

from loraloop.core.part import part
from loraloop.errors import ConfigError, DataError
from loraloop.protocols import Ocr
from loraloop.records import Collection, Example, Quarantined
from loraloop.source import columns as mapping
from loraloop.source import dataset_info
from loraloop.source.answers import same
from loraloop.source.columns import Columns
from loraloop.source.dataset_info import Entry
from loraloop.source.files import Files
from loraloop.source.hub import Hub
from loraloop.source.screening import Policy

_log = logging.getLogger(__name__)


@part
class Registry:
    """The dataset that a ``dataset_info.json`` has under ``name``: a file beside it, or a dataset of the hub."""

    path: Annotated[str, Field(min_length=1)] | None = None
    name: Annotated[str, Field(min_length=1)] | None = None
    instruction: str = ""
    limit: Annotated[int, Field(ge=1)] | None = None
    secrets: Policy = "warn"
    emails: bool = False

    def check(self) -> None:
        """Refuse a file, an entry or data that is not there."""
        self._source(self._entry())

    def collect(self, ocr: Ocr | None) -> Collection:
        """Read the rows in order, with the columns and roles that the entry names; say what it holds that is not read.

        Raises:
            ConfigError: There is no such entry, or its file is not there.
            DataError: The data cannot be read, or no row is usable.
        """
        entry = self._entry()
        source = self._source(entry)
        if entry.unknown:
            _log.warning("%s: these keys of %s are not read: %s", self.path, self.name, ", ".join(entry.unknown))
        quarantined: list[Quarantined] = []
        count = entry.keys.get("num_samples")
        limit = self.limit or (count if isinstance(count, int) else None)
        records = (
            (item, entry.renamed(row), provenance)
            for item, row, provenance in itertools.islice(source.records(quarantined), limit)
        )
        found = mapping.collect(str(self.name), records, Columns(), self.instruction, quarantined)
        if entry.keys.get("ranking") and not any(example.rejected for example in found.examples):
            raise DataError(f"{self.path}: {self.name} says ranking, and no row has chosen and rejected answers")
        return found

    def correct(self, example: Example, answer: str) -> bool:
        """The answer must equal the output but for case, white space and a full stop at the end."""
        return same(example.output, answer)

    def _entry(self) -> Entry:
        if self.path is None or self.name is None:
            raise ConfigError(
                "source.path and source.name are not both set: name the file and the dataset, such as "
                "source.path=data/dataset_info.json source.name=alpaca_en_demo"
            )
        path = Path(self.path).expanduser()
        return dataset_info.read(path / "dataset_info.json" if path.is_dir() else path, self.name)

    def _source(self, entry: Entry) -> Files | Hub:
        """What reads the rows. The hub comes first where an entry names both, as LLaMA-Factory has it."""
        if url := entry.keys.get("hf_hub_url"):
            source: Files | Hub = Hub(
                name=str(url),
                config=entry.keys.get("subset"),
                split=entry.keys.get("split") or "train",
                revision=entry.keys.get("revision"),
            )
        else:
            path = Path(str(self.path)).expanduser()
            folder = path if path.is_dir() else path.parent
            source = Files(path=str(folder / str(entry.keys["file_name"])))
        source.check()
        return source
