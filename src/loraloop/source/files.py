"""Examples from a person's own JSONL, JSON, CSV, Parquet and TOON files."""

from __future__ import annotations

import glob
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field

from loraloop.core import tables
from loraloop.core.part import part
from loraloop.errors import ConfigError, DataError
from loraloop.protocols import Ocr
from loraloop.records import Collection, Example, Provenance, Quarantined
from loraloop.source import columns as mapping
from loraloop.source.answers import same
from loraloop.source.columns import Columns
from loraloop.source.screening import Policy


@part
class Files:
    """Rows of a file, of every file in a folder, or of every file that a glob finds; the suffix decides the format."""

    path: Annotated[str, Field(min_length=1)] | None = None
    columns: Columns = Columns()
    instruction: str = ""
    limit: Annotated[int, Field(ge=1)] | None = None
    secrets: Policy = "warn"
    emails: bool = False

    def check(self) -> None:
        """Refuse a path that is not set or finds no file."""
        if self.path is None:
            raise ConfigError("source.path is not set: name a file, a folder or a glob, such as source.path=my.csv")
        if not self._paths():
            raise ConfigError(
                f"source.path={self.path} finds no file (from {Path.cwd()}): name a file, a folder with files, "
                "or a glob in quotes, such as 'source.path=\"data/*.jsonl\"'"
            )

    def collect(self, ocr: Ocr | None) -> Collection:
        """Read the rows in the order of the file names; what cannot be parsed or used is quarantined.

        Raises:
            ConfigError: ``path`` finds no file.
            DataError: A mapped column is in no row, or no row is usable.
        """
        self.check()
        quarantined: list[Quarantined] = []
        records = itertools.islice(self.records(quarantined), self.limit)
        return mapping.collect(str(self.path), records, self.columns, self.instruction, quarantined)

    def correct(self, example: Example, answer: str) -> bool:
        """The answer must equal the output but for case, white space and a full stop at the end."""
        return same(example.output, answer)

    def _paths(self) -> list[Path]:
        path = Path(str(self.path)).expanduser()
        if path.is_file():
            return [path]
        found = path.iterdir() if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 - it may be absolute
        return sorted(file for file in found if file.is_file() and not file.name.startswith("."))

    def records(self, quarantined: list[Quarantined]) -> Iterator[mapping.Record]:
        """The rows of all files; what cannot be parsed is added to ``quarantined``."""
        index = itertools.count()
        for path in self._paths():

            def bad(line: int, reason: str, path: Path = path) -> None:
                quarantined.append(Quarantined(f"{path}:{line}", reason))

            try:
                for number, row in tables.numbered(path, bad):
                    yield f"{path}:{number}", row, Provenance(source="files", index=next(index))
            except DataError as error:
                quarantined.append(Quarantined(str(path), str(error)))
