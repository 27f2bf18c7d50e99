"""Stage ``read``: OCR alone, one row per page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from loraloop.errors import ConfigError
from loraloop.workflows import reading

if TYPE_CHECKING:
    from loraloop.protocols import Ocr, Source
    from loraloop.records import Job


def read(job: Job, output: str, source: Source, ocr: Ocr) -> None:
    """Read the images of ``source`` into ``output``, one row per page, in the order of the images.

    The same command continues a stopped one: rows live in ``output.part`` until all are there, and an image that
    changed since is read again. Text is written as it was read; ``source.secrets`` acts when rows become examples.

    Raises:
        ConfigError: The source has no images, ``output`` is not a file of rows, or rows of a stopped run were read with
            other settings of the engine.
        DataError: ``output`` cannot be written.
    """
    file = Path(output).expanduser()
    if file.suffix != ".jsonl" or file.is_dir():
        raise ConfigError(f"output={output}: one JSON row per page is written to a .jsonl file: output=pages.jsonl")
    images: Callable[[], Sequence[Path]] | None = getattr(source, "images", None)
    if images is None:
        raise ConfigError("stage=read reads images, and this source has none: source=vault source.path=scans/")
    reading.read_into(file, images(), ocr, reading.deciding(job))
