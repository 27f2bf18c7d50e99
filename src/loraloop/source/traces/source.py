"""The config group ``source=traces``: conversations that other programs logged."""

from __future__ import annotations

import glob
import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated

from pydantic import Field

from loraloop.core.part import part
from loraloop.core.progress import track
from loraloop.errors import ConfigError, DataError
from loraloop.protocols import Ocr
from loraloop.records import Collection, Example, Quarantined
from loraloop.source.answers import same
from loraloop.source.screening import Policy
from loraloop.source.traces import mlflow, reading
from loraloop.source.traces.reading import Found

DATABASES = frozenset({".db", ".sqlite", ".sqlite3"})
FILES = frozenset({".jsonl", ".json"})

_log = logging.getLogger(__name__)


@part
class Traces:
    """OpenAI requests with responses, OTLP spans or MLflow traces; which of them a row is, it says itself.

    Attributes:
        path: A file, a folder, a glob, MLflow's database (``mlruns/mlflow.db``) or the address of its server.
        experiment: Of MLflow's traces; ``None`` for all.
        limit: Rows to read at most.
    """

    path: Annotated[str, Field(min_length=1)] | None = None
    experiment: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    secrets: Policy = "quarantine"
    emails: bool = False

    def check(self) -> None:
        """Refuse a path that is not set or finds no file.

        Raises:
            ConfigError: It does.
        """
        if self.path is None:
            raise ConfigError(
                "source.path is not set: name a log, such as source.path=calls.jsonl, a folder of them, MLflow's "
                "database (mlruns/mlflow.db) or the address of its server"
            )
        if self._mlflow is None and not self._paths():
            raise ConfigError(
                f"source.path={self.path} finds no file (from {Path.cwd()}): name a .jsonl or .json file, a folder of "
                "such files, or a glob in quotes, such as 'source.path=\"logs/*.jsonl\"'"
            )

    def collect(self, ocr: Ocr | None = None) -> Collection:
        """The conversations as examples, in the order of the log.

        Raises:
            ConfigError: ``path`` finds no file.
            DataError: No conversation can be used, or MLflow cannot be read.
        """
        found = self.read()
        return Collection(tuple(map(reading.example, found.traces)), tuple(found.aside))

    def correct(self, example: Example, answer: str) -> bool:
        """The answer must equal the output but for case, white space and a full stop at the end."""
        return same(example.output, answer)

    def read(self) -> Found:
        """The conversations with what the log says of them; says which forms were recognised.

        Raises:
            ConfigError: ``path`` finds no file.
            DataError: No conversation can be used, or MLflow cannot be read.
        """
        self.check()
        aside: list[Quarantined] = []
        rows = track(islice(self._rows(aside), self.limit), "reading", "row", None)
        found = reading.conversations(rows, aside)
        if not found.traces:
            reasons = "; ".join(f"{one.item}: {one.reason}" for one in aside[:3])
            raise DataError(f"{self.path}: no conversation, {len(aside)} set aside{reasons and f' ({reasons})'}")
        _log.info("%s: recognised %s", self.path, found.line())
        return found

    @property
    def _mlflow(self) -> str | None:
        """The address of MLflow's traces, where the path is one."""
        path = str(self.path)
        if path.startswith(("http://", "https://", "sqlite:///")):
            return path
        return f"sqlite:///{Path(path).expanduser().absolute()}" if Path(path).suffix in DATABASES else None

    def _rows(self, aside: list[Quarantined]) -> Iterator[reading.Row]:
        if self._mlflow is not None:
            return mlflow.rows(self._mlflow, self.experiment)
        return reading.files(self._paths(), aside)

    def _paths(self) -> list[Path]:
        path = Path(str(self.path)).expanduser()
        if path.is_file():
            return [path]
        found = path.rglob("*") if path.is_dir() else map(Path, glob.glob(str(path), recursive=True))  # noqa: PTH207 - it may be absolute
        return sorted(file for file in found if file.is_file() and file.suffix.lower() in FILES)
