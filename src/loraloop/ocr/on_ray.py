"""An engine on many machines: Ray Data reads the files, a pool of actors reads the pages."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from loraloop.core.console import printable
from loraloop.core.extras import require
from loraloop.core.leaves import located
from loraloop.core.part import part
from loraloop.core.signals import sigterm_kept
from loraloop.errors import ConfigError
from loraloop.ocr.image import digest
from loraloop.ocr.rapid import RapidOcr
from loraloop.ocr.tesseract import Tesseract
from loraloop.records import Page


@part
class OnRay:
    """Reads pages with the same engine in every actor of a Ray cluster; rows are those that the engine alone gives.

    Images are handed out by shards. A file's bytes travel through Ray's object store, so an actor needs no access to
    the folder; its machine needs loraloop and the engine. Ray starts an actor that dies again with the same pages.

    Attributes:
        reader: The engine of each actor; its ``workers`` and ``cache`` do not apply.
        actors: Actors, one CPU each; ``null`` is one per CPU of the cluster.
        address: A running cluster, such as ``auto`` or ``ray://HOST:10001``; ``null`` starts one on this machine.
        shard: Images handed out together; so many pages are in memory at most.
        batch: Images that an actor is given at a time.
    """

    reader: Tesseract | RapidOcr = Tesseract()
    actors: Annotated[int, Field(ge=1)] | None = None
    address: str | None = None
    shard: Annotated[int, Field(ge=1)] = 512
    batch: Annotated[int, Field(ge=1)] = 8

    def check(self) -> None:
        """Find Ray and the engine on this machine.

        Raises:
            MissingDependencyError: Either is not installed; the message holds the line that installs it.
        """
        require("ray.data", "ray")
        self.reader.check()

    def warm(self) -> AbstractContextManager[None]:
        """Nothing: the actors end with what they read."""
        return nullcontext()

    def read(self, images: Iterable[Path]) -> Iterator[Page]:
        """Read images in the order given; see :class:`loraloop.protocols.Ocr`."""
        self.check()
        return self._read(iter(images))

    def _read(self, images: Iterator[Path]) -> Iterator[Page]:
        ray = require("ray", "ray")
        ours = False
        try:
            while shard := list(islice(images, self.shard)):
                if not ray.is_initialized():
                    self._connect(ray)
                    ours = True
                actors = self.actors or max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)
                yield from self._shard(shard, min(actors, len(shard)))
        finally:
            if ours:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        # One CPU more than actors: Ray Data reads files in tasks beside them.
        cpus = {"num_cpus": self.actors + 1} if self.actors else {}
        local: dict[str, Any] = {} if self.address else {"include_dashboard": False, **cpus}
        try:
            with sigterm_kept():
                ray.init(address=self.address or "local", log_to_driver=False, logging_level=logging.WARNING, **local)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"ocr.address={self.address}: there is no Ray cluster ({error}): `ray start --head` starts one, "
                "ocr.address=null takes this machine"
            ) from error

    def _shard(self, images: list[Path], actors: int) -> Iterator[Page]:
        """The pages of one shard, in order; what cannot be opened is quarantined by the engine itself."""
        files = {str(image.absolute()): image for image in images}
        # Ray takes whole files whose names are UTF-8.
        whole = [name for name, image in files.items() if printable(name) == name and located(image)[1] is None]
        present = [name for name in whole if digest(files[name])]
        pages = dict(self._pages(present, actors)) if present else {}
        missing = self.reader.read(image for name, image in files.items() if name not in pages)
        for name, image in files.items():
            yield replace(pages[name], image=str(image)) if name in pages else next(missing)

    def _pages(self, files: list[str], actors: int) -> Iterator[tuple[str, Page]]:
        """Pages by file, as they are ready."""
        data = require("ray.data", "ray")
        logging.getLogger("ray.data").setLevel(logging.ERROR)  # it warns that its progress bars are off
        data.DataContext.get_current().enable_progress_bars = False
        blocks = min(len(files), 4 * actors)
        rows = data.read_binary_files(files, include_paths=True, override_num_blocks=blocks).map_batches(
            _Reader,
            fn_constructor_args=(replace(self.reader, workers=1, cache=None),),
            batch_size=self.batch,
            compute=data.ActorPoolStrategy(size=actors),
        )
        for row in rows.iter_rows():
            yield row["path"], row["page"]


class _Reader:
    """An actor: the bytes of some files in, their pages out."""

    def __init__(self, reader: Tesseract | RapidOcr) -> None:
        self._reader = reader

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            files = [Path(folder) / f"{place}{Path(path).suffix}" for place, path in enumerate(batch["path"])]
            for file, content in zip(files, batch["bytes"], strict=True):
                file.write_bytes(content)
            return {"path": batch["path"], "page": list(self._reader.read(files))}
