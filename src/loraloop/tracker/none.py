"""No tracking: every call is accepted and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from loraloop.core.part import part
from loraloop.errors import TrackingError


class NoRun:
    """A run that keeps nothing."""

    id: str | None = None
    link: str | None = None

    def params(self, values: Mapping[str, Any]) -> None:
        """Ignore parameters."""

    def tags(self, values: Mapping[str, str]) -> None:
        """Ignore tags."""

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Ignore metrics."""

    def artifact(self, path: Path, folder: str = "") -> None:
        """Ignore a file or folder."""

    def text(self, text: str, name: str) -> None:
        """Ignore a text."""

    def table(self, rows: Sequence[Mapping[str, Any]], name: str) -> None:
        """Ignore a table."""

    def figure(self, figure: Any, name: str) -> None:
        """Ignore a figure."""

    def dataset(self, name: str, fingerprint: str, rows: int, context: str) -> None:
        """Ignore a dataset."""


@part
class NoTracker:
    """Tracks nothing and writes nothing."""

    @property
    def ui_command(self) -> str | None:
        """There is nothing to look at."""
        return None

    def check(self) -> None:
        """Always usable."""

    @contextmanager
    def start(self, name: str, parent: str | None = None, resume: str | None = None) -> Iterator[NoRun]:
        """Open a run that keeps nothing."""
        yield NoRun()

    def artifacts(self, run: str) -> Path:
        """Always an error: nothing is tracked."""
        self._nothing(run)

    def read(self, run: str) -> Mapping[str, Any]:
        """Always an error: nothing is tracked."""
        self._nothing(run)

    def _nothing(self, run: str) -> NoReturn:
        raise TrackingError(f"run {run!r} cannot be read, because tracker=none tracks nothing: use tracker=mlflow")
