"""The folder of an export: where it lies, what it says of itself, and whether it holds what was exported."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from loraloop.core import adapter_files
from loraloop.core.adapter_files import CONFIG, MANIFEST
from loraloop.core.hashing import sha256_json
from loraloop.errors import ArtefactError, ConfigError
from loraloop.publish import export as exports
from loraloop.records import Export, Parity
from loraloop.registry import manifest as manifests

if TYPE_CHECKING:
    from loraloop.records import Version
    from loraloop.registry.ledger import Entry
    from loraloop.registry.mlflow import MlflowRegistry


SEAL = "files_sha256"


def read(folder: Path) -> Export:
    """What an export says of itself: ``export.json``, or for a PEFT folder the manifest.

    Raises:
        ArtefactError: It says nothing, or in another form.
    """
    if (folder / exports.FACTS).exists() or not (folder / MANIFEST).exists():
        return exports.read(folder)
    manifest = manifests.read(folder)
    base = manifest.base
    return Export(
        form="adapter",
        dtype=base.dtype,
        version="an adapter",
        content=manifests.content_sha256(folder, manifest),
        base=base.name,
        trained_on=base.quantization,
    )


def find(
    version: Version, path: Path | None, forms: Sequence[str], registry: MlflowRegistry, key: str = "path"
) -> Path:
    """The folder of a version's export in one of some forms.

    Args:
        version: Registered.
        path: The folder, or one that holds it; ``None``: where the version was published last.
        forms: That are looked for.
        registry: Its ledger says where versions were published.
        key: By which the folder is named.

    Raises:
        ConfigError: There is none, or several.
    """
    places = [path] if path else list(_published(version, registry))
    name = f"{version.name}-v{version.number}"
    near = [each for place in places for each in (place, place / name, *sorted(place.glob(f"{name}-*")))]
    found = {each: read(each) for each in dict.fromkeys(near) if _is_export(each)}
    fitting = [each for each, export in found.items() if export.form in forms]
    if len(fitting) == 1 or (fitting and path is None):
        return fitting[0]
    have = ", ".join(f"{each} ({export.form})" for each, export in found.items()) or "none"
    raise ConfigError(
        f"an export in the form {' or '.join(forms)} is needed, and the exports of {version.name} version "
        f"{version.number} {f'in {path}' if path else 'that the ledger knows'} are: {have}; publish one with "
        f"stage=publish, or name its folder with {key}=FOLDER"
    )


def measured(folder: Path) -> list[Parity]:
    """How an export answered, by the results beside it; results that cannot be read count for nothing."""
    found = []
    for path in sorted(folder.glob(exports.PARITY)):
        with contextlib.suppress(ValidationError):
            found.append(TypeAdapter(Parity).validate_json(path.read_bytes()))
    return found


def sealed(place: str) -> dict[str, str]:
    """What the ledger keeps of the files of an export in a folder: who can write it can write its hashes anew."""
    folder = Path(place)
    return {SEAL: _seal(exports.read(folder))} if (folder / exports.FACTS).is_file() else {}


def require_unaltered(version: Version, folder: Path, export: Export, registry: MlflowRegistry) -> bool:
    """Check that a folder holds an export of a version, as it was written.

    Returns:
        Whether what is measured of it is told of the version: not where the ledger knows other files alone.

    Raises:
        ArtefactError: It holds another version, or was altered.
    """
    if export.form == "adapter":
        manifests.verify(folder, manifests.read(folder))
    if export.content not in (version.path.name, _plain_content(version)):
        raise ArtefactError(
            f"{folder} holds {export.version} (adapter {export.content[:12]}), and {version.name} version "
            f"{version.number} is adapter {version.path.name[:12]}: name the export's version with adapter="
        )
    if export.form == "adapter":
        return True
    exports.verify(folder, export)
    known = [each.numbers for each in _publications(version, registry) if SEAL in each.numbers]
    here = {each[SEAL] for each in known if Path(str(each["place"])).resolve() == folder.resolve()}
    if here and _seal(export) not in here:
        raise ArtefactError(
            f"{folder} is not what was exported: its files and their hashes in {exports.FACTS} were written anew, and "
            f"the ledger knows others; {exports.AGAIN}"
        )
    return not known or _seal(export) in {each[SEAL] for each in known}


def _seal(export: Export) -> str:
    return sha256_json(export.files)


def _published(version: Version, registry: MlflowRegistry) -> Iterator[Path]:
    """Where a version was published, the last place first; places that are not on this machine hold nothing."""
    return (Path(str(entry.numbers["place"])) for entry in reversed(_publications(version, registry)))


def _publications(version: Version, registry: MlflowRegistry) -> list[Entry]:
    entries = replace(registry, name=version.name).history()
    return [
        each
        for each in entries
        if (each.event, each.version) == ("publish", version.number) and "place" in each.numbers
    ]


def _is_export(folder: Path) -> bool:
    return (folder / exports.FACTS).is_file() or all((folder / name).is_file() for name in (MANIFEST, CONFIG))


def _plain_content(version: Version) -> str:
    """The hash of the version as it is published: with plain weights."""
    plain = adapter_files.plain_manifest(version.path, version.manifest)
    return manifests.content_sha256(version.path, plain)
