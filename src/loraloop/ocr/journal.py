"""Pages read so far, kept beside the file that they become, so that a stopped run goes on where it was."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson

from loraloop.core import atomic
from loraloop.core.console import printable
from loraloop.errors import ConfigError
from loraloop.ocr.image import digest
from loraloop.records import Page

Row = dict[str, Any]
Settings = Mapping[str, str]
Read = Callable[[Iterable[Path]], Iterator[Page]]


class Journal:
    """Rows of pages, appended as they are read; only their places are in memory.

    Args:
        output: The file that the rows become; until then they are in ``NAME.part`` beside it.
        settings: What decides a page's text. Rows kept under other settings are never mixed with new ones.

    Raises:
        ConfigError: Rows are kept under other settings, or another run is writing the same file.
        OSError: The folder cannot be written.
    """

    def __init__(self, output: Path, settings: Settings) -> None:
        self.output = output
        self.file = output.with_name(f"{output.name}.part")
        output.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.file.open("a+b")
        self._places: dict[str, int] = {}
        try:
            self._lock()
            self._open(settings)
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    def __len__(self) -> int:
        """Number of images whose row is kept."""
        return len(self._places)

    def fill(self, images: Iterable[Path], read: Read, seen: Callable[[Row, bool], None]) -> None:
        """Keep a row of every image: one that is not kept yet, or has changed since, goes to ``read``.

        Args:
            images: Images in the order of the finished file.
            read: The engine; it takes images as it needs them and gives one page each.
            seen: Called with every row and whether it was kept by an earlier run, in no fixed order.
        """

        def missing() -> Iterator[Path]:
            for image in images:
                row = self._kept(image)
                if row is None:
                    yield image
                else:
                    seen(row, True)

        for page in read(missing()):
            row = page.to_row()
            self._places[page.image] = self._append(row)
            seen(row, False)

    def finish(self, images: Iterable[Path]) -> None:
        """Write the rows of ``images``, in their order, as one whole file, and remove what was beside it."""
        with atomic.write(self.output) as whole:
            for image in images:
                whole.write(self._line(self._places[printable(str(image))]))
        self.file.unlink()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"output={self.output} is being written by another run: wait for it, or name another"
            ) from None

    def _open(self, settings: Settings) -> None:
        self._stream.seek(0)
        first = self._stream.readline()
        if not first.endswith(b"\n"):  # new, or its first line was torn
            self._stream.truncate(0)
            self._append({"settings": dict(settings)})
            return
        self._compare(_parsed(first).get("settings"), settings)
        place = len(first)
        for line in iter(self._stream.readline, b""):
            if not line.endswith(b"\n"):
                self._stream.truncate(place)
                break
            image = _parsed(line).get("image")
            if isinstance(image, str):
                self._places[image] = place
            place += len(line)

    def _compare(self, kept: object, settings: Settings) -> None:
        if not isinstance(kept, dict):
            raise ConfigError(f"output={self.output}: {self.file} is there but holds no pages: name another output")
        names = sorted(name for name in {*kept, *settings} if kept.get(name) != settings.get(name))
        if names:
            told = ", ".join(f"ocr.{name}={kept.get(name)} (now {settings.get(name)})" for name in names)
            raise ConfigError(
                f"output={self.output}: {self.file} keeps pages of a stopped run that were read with {told}: go on "
                "with those settings, name another output, or remove that file to read every page again"
            )

    def _kept(self, image: Path) -> Row | None:
        """The kept row of an image that has not changed since."""
        place = self._places.get(printable(str(image)))
        if place is None:
            return None
        row = _parsed(self._line(place))
        return row if row.get("sha256") == digest(image) else None

    def _line(self, place: int) -> bytes:
        self._stream.seek(place)
        return self._stream.readline()

    def _append(self, row: Row) -> int:
        place = self._stream.seek(0, 2)
        self._stream.write(orjson.dumps(row) + b"\n")
        self._stream.flush()
        return place


def _parsed(line: bytes) -> Row:
    with contextlib.suppress(orjson.JSONDecodeError):
        row = orjson.loads(line)
        if isinstance(row, dict):
            return row
    return {}
