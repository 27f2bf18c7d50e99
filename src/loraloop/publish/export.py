"""What an export's folder says of itself: which version it holds, in which form, and the hash of every file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from loraloop.core import atomic
from loraloop.core.console import size
from loraloop.core.hashing import sha256
from loraloop.errors import ArtefactError, ConfigError, RegistryError
from loraloop.records import Export, Version

FACTS = "export.json"
CARD = "README.md"
PARITY = "parity-*.json"
"""What ``stage=verify`` writes beside the weights; neither it nor the card belongs to what was exported."""
AGAIN = "remove the folder and publish again, or publish into another publish.path"
SLACK = 64 << 20
"""Bytes for the tokenizer and the small files."""


def of(version: Version, form: str, dtype: str, merged_into: str | None = None) -> Export:
    """What an export of a version will be, before there are files."""
    base = version.manifest.base
    return Export(
        form=form,
        dtype=dtype,
        version=f"{version.name}/{version.number}",
        content=version.path.name,
        base=base.name,
        trained_on=base.quantization,
        merged_into=merged_into,
    )


def require_exportable(version: Version) -> None:
    """Check that a version may be merged or converted.

    Args:
        version: To be exported.

    Raises:
        RegistryError: It is not registered, or its base has random weights.
    """
    base = version.manifest.base
    if version.number < 1:
        raise RegistryError(
            f"{version.path} is not registered, and only versions are published; use stage=register first"
        )
    if base.weights == "random":
        raise RegistryError(f"the base {base.name} has random weights, so an export of it means nothing")


def merged_into(version: Version, from_nf4: bool) -> str:
    """Into which weights of the base a version is merged: those that it was trained on, or the unquantised ones."""
    return "unquantised" if version.manifest.base.quantization == "none" or from_nf4 else "dequantised"


def require_disk(target: Path, count: int, what: str) -> None:
    """Check that the disk has room for a folder, once what a killed publish left of it is removed.

    Args:
        target: The folder.
        count: Its bytes, but for the small files.
        what: It is to hold.

    Raises:
        ConfigError: It has not.
    """
    atomic.remove_abandoned(target)
    require_room(target.parent, count + SLACK, what, "publish.path", "a smaller publish.dtype")


def require_room(folder: Path, count: int, what: str, key: str, smaller: str) -> None:
    """Check that the disk of a folder, which need not exist yet, has room.

    Args:
        folder: Into which is written.
        count: Bytes.
        what: It is to hold.
        key: By which another folder is chosen.
        smaller: What else helps.

    Raises:
        ConfigError: It has not.
    """
    whole = folder.absolute()
    there = next(each for each in (whole, *whole.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if free < count:
        raise ConfigError(
            f"{key}={folder}: {what} takes up to {size(count)} with the small files, and the disk has {size(free)} "
            f"free; choose another {key} or {smaller}"
        )


def write(target: Path, export: Export, fill: Callable[[Path], Export]) -> None:
    """Make the folder ``target`` of an export, whole or not at all; an equal export that is there stays.

    Args:
        target: The folder.
        export: What it is to hold.
        fill: Writes the files into a folder, and returns ``export`` with what was found meanwhile.

    Raises:
        RegistryError: The folder holds something else, or cannot be written; it is as it was.
    """
    if target.exists():
        _require_same(target, export)
        return
    try:
        with atomic.folder(target) as beside:
            made = asdict(fill(beside)) | {"files": _hashes(beside)}
            (beside / FACTS).write_text(json.dumps(made, indent=2, sort_keys=True) + "\n", "utf8")
    except OSError as error:
        if target.exists():  # another process published meanwhile
            _require_same(target, export)
            return
        raise RegistryError(
            f"cannot write {target} ({error.strerror}); nothing was published: choose another publish.path"
        ) from error


def read(folder: Path) -> Export:
    """What an export says of itself.

    Raises:
        ArtefactError: It says nothing, or in another form.
    """
    try:
        return TypeAdapter(Export).validate_json((folder / FACTS).read_bytes())
    except FileNotFoundError as error:
        raise ArtefactError(
            f"{folder} holds no {FACTS}, so it is no export of stage=publish publish=merged or publish=gguf"
        ) from error
    except (ValidationError, OSError) as error:
        raise ArtefactError(f"{folder / FACTS} is damaged; publish into another folder") from error


def verify(folder: Path, export: Export) -> None:
    """Check that a folder holds the files that were exported, and no other weights.

    Raises:
        ArtefactError: A file is missing, altered or was added; names them.
    """
    found, there = _hashes(folder), export.files
    wrong = {
        "altered": [name for name in found if name in there and found[name] != there[name]],
        "added": [name for name in found if name not in there],
        "missing": [name for name in there if name not in found],
    }
    told = [f"{', '.join(sorted(names))} {what}" for what, names in wrong.items() if names]
    if told:
        raise ArtefactError(f"{folder} is not what was exported: {'; '.join(told)}; {AGAIN}")


def _hashes(folder: Path) -> dict[str, str]:
    # A person edits the card, and stage=verify adds its results; one that was killed left its beginning.
    ours = {folder / FACTS, folder / CARD, *folder.glob(PARITY), *folder.glob(f".{PARITY}.*.part")}
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path not in ours)
    return {str(path.relative_to(folder)): sha256(path) for path in files}


def _require_same(target: Path, export: Export) -> None:
    try:
        there = read(target)
    except ArtefactError as error:
        raise RegistryError(f"{target} exists and is no export: choose another publish.path") from error
    what = [(each.version, each.content, each.form, each.dtype, each.merged_into) for each in (there, export)]
    # An export of an earlier version does not say into what it was merged, which was always the unquantised weights.
    if what[0] != what[1] and what[0] != (*what[1][:-1], None):
        raise RegistryError(
            f"{target} holds another export (version {there.version}, adapter {there.content[:12]}, {there.form}, "
            f"{there.dtype}): choose another publish.path"
        )
    verify(target, there)
