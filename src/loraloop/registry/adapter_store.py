"""Registered adapters on disk: each in a folder named by its content, written once."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from loraloop.core import adapter_files, atomic
from loraloop.core.adapter_files import CONFIG, MANIFEST
from loraloop.errors import ArtefactError, RegistryError
from loraloop.records import Manifest
from loraloop.registry import manifest as manifests


def load(kept: Path, content: str) -> Manifest:
    """The manifest of a kept adapter, which must still be what was registered as ``content``.

    Raises:
        ArtefactError: A file of it was altered, cut short or removed.
    """
    manifest = manifests.read(kept)
    manifests.verify(kept, manifest)
    if manifests.content_sha256(kept, manifest) != content:
        raise ArtefactError(
            f"{kept} was altered after it was registered ({CONFIG} or {MANIFEST} differs); "
            "restore it, or register the adapter again"
        )
    return manifest


def save(kept: Path, adapter: Path, manifest: Manifest, content: str) -> None:
    """Copy a verified adapter into ``kept``; an equal one there stays, a damaged one is replaced."""
    if kept.exists():
        try:
            load(kept, content)
        except RegistryError:
            shutil.rmtree(kept)
        else:
            return
    with atomic.folder(kept) as beside:
        for path in (adapter / CONFIG, adapter_files.weights(adapter)):
            shutil.copyfile(path, beside / path.name)
        manifests.write(beside, manifest)


def download(kept: Path, source: str, uri: str, content: str) -> None:
    """Fetch an adapter that another machine registered on the server ``uri``, and keep it once it is verified."""
    from mlflow.artifacts import download_artifacts

    with tempfile.TemporaryDirectory() as scratch:
        got = Path(download_artifacts(source, dst_path=scratch, tracking_uri=uri))
        load(got, content)
        with atomic.folder(kept) as beside:
            for path in (got / CONFIG, adapter_files.weights(got), got / MANIFEST):
                shutil.copyfile(path, beside / path.name)
