"""Pages through child processes: what every engine's part shares."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from threading import Lock
from typing import Annotated, Any, Literal

from pydantic import Field

from loraloop.core import transparency
from loraloop.core.console import printable
from loraloop.core.hashing import sha256
from loraloop.core.leaves import located
from loraloop.core.part import part
from loraloop.ocr.cache import Cache
from loraloop.ocr.engines import BUSY
from loraloop.ocr.pool import LostError, Pool
from loraloop.records import Page, Word

GRACE_SECONDS = 30.0  # for a worker to start, to load its engine and to prepare a page
RECIPE = tuple(
    f"{name}.py"
    for name in ("image", "colour", "preprocess", "layout", "gaps", "supplement", "attempts", "engines", "worker")
)


_WARM: dict[Reading, Callable[[Sequence[str], Mapping[str, str], int], Pool]] = {}
"""Engines whose workers stay, each with what gives its pool."""


@part
class Reading:
    """How pages are prepared and read, whatever the engine.

    Attributes:
        threshold: Binarisation after preprocessing.
        invert: Make light text on dark ground dark on light.
        denoise: Non-local means, on noisy pages only.
        normalize: Divide by the ground's brightness and stretch the contrast.
        deskew: Level lines that fall by up to 8 degrees.
        upscale: Scale small letters up.
        unrule: Erase the straight lines of tables and forms.
        workers: Child processes; ``null`` is one per CPU that this process may use.
        threads: Most OpenMP threads that Tesseract may use in each; more than one slow each other down.
        timeout_seconds: Processor time for a page; one that needs more is read once more, alone and in one way, and
            quarantined if that takes longer too.
        max_pixels: A larger image is quarantined before it is decoded.
        cache: Folder of pages already read; ``null`` keeps none.
    """

    threshold: Literal["none", "otsu", "adaptive"] = "none"
    invert: bool = True
    denoise: bool = True
    normalize: bool = True
    deskew: bool = True
    upscale: bool = True
    unrule: bool = True
    workers: Annotated[int, Field(ge=1)] | None = None
    threads: Annotated[int, Field(ge=1)] = 1
    timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    max_pixels: Annotated[int, Field(ge=1)] = 50_000_000
    cache: Path | None = Path("mlruns/cache/ocr")

    def _pages(self, images: Iterable[Path], **engine: Any) -> Iterator[Page]:
        """Read ``images`` with the engine that these settings of the worker describe; ``name`` is its name."""
        names = ("invert", "denoise", "normalize", "deskew", "upscale", "unrule", "threshold")
        steps = {name: getattr(self, name) for name in names}
        settings = {**engine, "steps": steps, "max_pixels": self.max_pixels}
        limited = {**settings, "timeout_seconds": self.timeout_seconds}
        command = [sys.executable, "-m", "loraloop.ocr.worker", json.dumps(limited)]
        quiet = {"OMP_THREAD_LIMIT": str(self.threads), "OPENCV_LOG_LEVEL": "ERROR"}
        workers, warm = self.workers or _cpus(), _WARM.get(self)
        pool = warm(command, quiet, workers) if warm else Pool(command, quiet, workers)
        return pool.map(partial(self._page, pool=pool, settings=settings), images)

    @contextmanager
    def warm(self) -> Iterator[None]:
        """Keep the workers from one :meth:`read` to the next, for who reads an image now and then."""
        made: list[Pool] = []
        lock = Lock()

        def pool(command: Sequence[str], environment: Mapping[str, str], workers: int) -> Pool:
            with lock:
                made[:] = made or [Pool(command, environment, workers, stay=True)]
            return made[0]

        _WARM[self] = pool
        try:
            yield
        finally:
            del _WARM[self]
            for one in made:
                one.close()

    def _page(self, image: Path, pool: Pool, settings: Mapping[str, Any]) -> Page:
        engine = settings["name"]
        if (name := printable(str(image))) != str(image):
            return _quarantined(Path(name), "", engine, "its name is not UTF-8: rename it")
        file, number = located(image)
        try:
            # A pipe, which would never end, is left to the worker, which refuses it.
            digest = "" if file.exists() and not file.is_file() else sha256(file)
        except OSError as error:
            return _quarantined(image, "", engine, f"cannot be opened: {error.strerror}")
        key = sha256(json.dumps([digest, number, settings, _recipe()]).encode())
        pages = Cache(self.cache)
        if (kept := pages.get(key, str(image))) is not None:
            return kept
        answer = self._asked(image, pool, simply=False)
        if answer.get("late") and not pool.stay:  # nobody waits for a second try at a served picture
            answer = self._asked(image, pool, simply=True)
        if answer.get("late"):
            answer = {"reason": f"took longer than ocr.timeout_seconds={self.timeout_seconds:g} of processor time"}
        if reason := answer.get("reason"):
            return _quarantined(image, digest, engine, reason)
        answer["words"] = tuple(Word(text, confidence, tuple(box)) for text, confidence, box in answer["words"])
        answer["steps"] = tuple(answer["steps"])
        page = Page(image=str(image), sha256=digest, **answer)
        pages.put(key, page)
        return page

    def _asked(self, image: Path, pool: Pool, *, simply: bool) -> dict[str, Any]:
        """A worker's answer, or that it was ``late``; ``simply`` asks for one reading while no other page is read."""
        # The worker's own limit ends the engine; this one, a little later, ends a worker that hangs elsewhere.
        seconds = (1 if pool.stay else BUSY) * self.timeout_seconds + GRACE_SECONDS
        ask = pool.ask_alone if simply else pool.ask
        try:
            answer: dict[str, Any] = json.loads(ask(json.dumps([str(image), simply]), seconds))
        except LostError as error:
            return {"late": True} if error.late else {"reason": str(error)}
        return answer


def _quarantined(image: Path, digest: str, engine: str, reason: str) -> Page:
    return Page(
        image=str(image),
        sha256=digest,
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


@cache
def _recipe() -> str:
    """Hash of the source that turns an image into text: a change to it makes earlier pages stale."""
    files = [*(Path(__file__).parent / name for name in RECIPE), Path(transparency.__file__)]
    return sha256(b"".join(file.read_bytes() for file in files))


def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
