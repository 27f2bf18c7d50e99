"""Tesseract, after OpenCV has made the page easy for it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from loraloop.errors import MissingDependencyError
from loraloop.ocr.cache import Cache
from loraloop.ocr.pool import LostError, Pool
from loraloop.part import part
from loraloop.records import Page, Word

PROGRAM = "tesseract"
GRACE_SECONDS = 30.0  # for a worker to start and to prepare a page
RECIPE = ("image.py", "preprocess.py", "worker.py")


@part
class Tesseract:
    """Reads pages with Tesseract's LSTM recogniser in child processes, one thread each.

    Attributes:
        psm: Tesseract's page segmentation mode; 6 is one uniform block of text.
        language: Tesseract's language data, several joined by ``+``.
        threshold: Binarisation after preprocessing; Tesseract's recogniser prefers grey.
        invert: Make light text on dark ground dark on light.
        denoise: Non-local means, on noisy pages only.
        normalize: Divide by the ground's brightness and stretch the contrast.
        deskew: Level lines that fall by up to 8 degrees.
        upscale: Scale small letters up.
        workers: Child processes; ``null`` is one per CPU that this process may use.
        timeout_seconds: A page that takes longer is quarantined.
        max_pixels: A larger image is quarantined before it is decoded.
        cache: Folder of pages already read; ``null`` keeps none.
    """

    psm: Annotated[int, Field(ge=3, le=13)] = 6
    language: Annotated[str, Field(pattern=r"^\w+(\+\w+)*$")] = "eng"
    threshold: Literal["none", "otsu", "adaptive"] = "none"
    invert: bool = True
    denoise: bool = True
    normalize: bool = True
    deskew: bool = True
    upscale: bool = True
    workers: Annotated[int, Field(ge=1)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000
    cache: Path | None = Path("mlruns/cache/ocr")

    def check(self) -> None:
        """Find the program and its language data.

        Raises:
            MissingDependencyError: Either is not installed; the message holds the line that installs it.
        """
        if shutil.which(PROGRAM) is None:
            raise MissingDependencyError(
                "ocr: the program tesseract is not on the PATH: `apt-get install tesseract-ocr` (Debian, Ubuntu) "
                "or `brew install tesseract` (macOS)"
            )
        there = _say("--list-langs").split("\n")[1:]
        missing = [name for name in self.language.split("+") if name not in there]
        if missing:
            packages = " ".join(f"tesseract-ocr-{name.replace('_', '-')}" for name in missing)
            raise MissingDependencyError(
                f"ocr.language={self.language!r}: Tesseract has no data for {', '.join(missing)} (there is: "
                f"{', '.join(there)}): `apt-get install {packages}` or `brew install tesseract-lang`"
            )

    def read(self, images: Iterable[Path]) -> Iterator[Page]:
        """Read images in the order given; see :class:`loraloop.protocols.Ocr`.

        Raises:
            MissingDependencyError: Tesseract or its language data is not installed.
        """
        self.check()
        engine = f"tesseract {_version()}"
        command = [sys.executable, "-m", "loraloop.ocr.worker", json.dumps(self._settings())]
        quiet = {"OMP_THREAD_LIMIT": "1", "OPENCV_LOG_LEVEL": "ERROR"}
        pool = Pool(command, quiet, self.workers or _cpus())
        return pool.map(partial(self._page, pool=pool, engine=engine), images)

    def _settings(self) -> dict[str, Any]:
        steps = {name: getattr(self, name) for name in ("invert", "denoise", "normalize", "deskew", "upscale")}
        return {
            "psm": self.psm,
            "language": self.language,
            "steps": {**steps, "threshold": self.threshold},
            "timeout_seconds": self.timeout_seconds,
            "max_pixels": self.max_pixels,
        }

    def _page(self, image: Path, pool: Pool, engine: str) -> Page:
        try:
            sha256 = _digest(image)
        except OSError as error:
            return _quarantined(image, "", engine, f"cannot be opened: {error.strerror}")
        key = self._key(sha256, engine)
        pages = Cache(self.cache)
        if (kept := pages.get(key, str(image))) is not None:
            return kept
        try:
            # The worker's own limit ends Tesseract; this one, a little later, ends a worker that hangs elsewhere.
            answer = json.loads(pool.ask(json.dumps(str(image)), self.timeout_seconds + GRACE_SECONDS))
        except LostError as error:
            return _quarantined(image, sha256, engine, str(error))
        if reason := answer.get("reason"):
            return _quarantined(image, sha256, engine, reason)
        answer["words"] = tuple(Word(text, confidence, tuple(box)) for text, confidence, box in answer["words"])
        answer["steps"] = tuple(answer["steps"])
        page = Page(image=str(image), sha256=sha256, engine=engine, **answer)
        pages.put(key, page)
        return page

    def _key(self, sha256: str, engine: str) -> str:
        decides = {name: value for name, value in self._settings().items() if name not in {"timeout_seconds"}}
        return hashlib.sha256(json.dumps([sha256, decides, engine, _recipe()]).encode()).hexdigest()


def _quarantined(image: Path, sha256: str, engine: str, reason: str) -> Page:
    return Page(
        image=str(image),
        sha256=sha256,
        width=0,
        height=0,
        text="",
        confidence=0.0,
        words=(),
        engine=engine,
        steps=(),
        seconds=0.0,
        status="quarantined",
        reason=reason,
    )


def _digest(image: Path) -> str:
    """SHA-256 of a file; empty for what is not a file, such as a pipe that would never end."""
    if image.exists() and not image.is_file():
        return ""
    with image.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@cache
def _recipe() -> str:
    """Hash of the source that turns an image into text: a change to it makes earlier pages stale."""
    return hashlib.sha256(b"".join((Path(__file__).parent / name).read_bytes() for name in RECIPE)).hexdigest()


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _version() -> str:
    found = re.search(r"tesseract v?(\S+)", _say("--version"))
    return found[1] if found else "unknown"


def _say(option: str) -> str:
    return subprocess.run([PROGRAM, option], capture_output=True, text=True, check=False).stdout.strip()
