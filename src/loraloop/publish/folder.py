"""Publishing into a folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from loraloop.core import atomic
from loraloop.core.hashing import sha256
from loraloop.core.part import part
from loraloop.errors import ConfigError, RegistryError
from loraloop.publish.bundle import Form, chosen, may_differ
from loraloop.publish.export import require_disk
from loraloop.records import Score, Version


@part
class Folder:
    """Copies a version to ``path/NAME-vN``, or an export of it to the name of its folder.

    Attributes:
        form: What is copied.
        export: Folder of the export, or one that holds it; ``None``: where it was published last.
        license: The Hub's name of a licence, for the card.
    """

    path: Path = Path("published")
    form: Form = "adapter"
    export: Path | None = None
    license: str | None = None

    def check(self) -> None:
        """See that ``path`` can hold folders.

        Raises:
            ConfigError: It is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ConfigError(f"publish.path={self.path} must be a folder, but it is a file; choose another")

    def publish(
        self, version: Version, scores: Score | None = None, export: Path | None = None, chat: str | None = None
    ) -> str:
        """Copy a version with its model card; an equal copy is left as it is.

        Args:
            version: A registered, verified version.
            scores: What it scored, for the card.
            export: Folder of an export that is copied instead of the adapter.
            chat: The chat template beside the adapter, where it is not the base's own.

        Returns:
            The folder.

        Raises:
            RegistryError: The folder holds something else, or cannot be written; it is as it was.
            ConfigError: The disk is too small.
        """
        target = self.path / (export.name if export else f"{version.name}-v{version.number}")
        files = chosen(version, scores, str(target), self.license, export, chat)
        if target.exists():
            _same(target, files)
            return str(target)
        sizes = (len(each) if isinstance(each, bytes) else each.stat().st_size for each in files.values())
        require_disk(target, sum(sizes), target.name)
        try:
            with atomic.folder(target) as beside:
                for name, content in files.items():
                    (beside / name).parent.mkdir(parents=True, exist_ok=True)
                    _put(content, beside / name)
        except OSError as error:
            raise RegistryError(
                f"cannot write {target} ({error.strerror}); nothing was published: choose another publish.path"
            ) from error
        return str(target)


def _put(content: Path | bytes, path: Path) -> None:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        shutil.copyfile(content, path)


def _same(target: Path, files: Mapping[str, Path | bytes]) -> None:
    # People edit the card of what they published; the adapter itself must be this one.
    for name, content in files.items():
        if not may_differ(name) and not ((target / name).is_file() and sha256(target / name) == sha256(content)):
            raise RegistryError(f"{target} exists and its {name} is not this version's; choose another publish.path")
