"""The files of an adapter's folder: PEFT's two, and loraloop's manifest beside them.

Weights in 8 or 4 bits (:mod:`loraloop.core.packing`) lie in a file of another name, which PEFT does not read: it would
take the codes for weights.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic, packing
from loraloop.core.hashing import sha256
from loraloop.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from loraloop.records import Manifest

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PACKED = "adapter_model.packed.safetensors"
MANIFEST = "manifest.json"


def weights(folder: Path) -> Path:
    """The file with an adapter's weights; that of PEFT's layout where there is none."""
    return packed if (packed := folder / PACKED).is_file() else folder / WEIGHTS


def tensors(folder: Path) -> dict[str, Tensor]:
    """An adapter's tensors by PEFT's names, packed ones in float32.

    Raises:
        ModelError: The file is damaged.
    """
    from safetensors.torch import load_file

    with reading(folder):
        return packing.unpack(load_file(weights(folder)))


def write(folder: Path, values: Mapping[str, Tensor], config: bytes, kept: packing.Storage = "plain") -> None:
    """Write an adapter's two files into a folder.

    Args:
        folder: It must hold no weights in another layout.
        values: Tensors by PEFT's names.
        config: ``adapter_config.json``.
        kept: How the weights are kept.
    """
    made = values if kept == "plain" else packing.pack(values, kept)
    with atomic.write(folder / CONFIG) as stream:
        stream.write(config)
    with atomic.write(folder / (WEIGHTS if kept == "plain" else PACKED)) as stream:
        stream.write(_saved(made))


def plain_weights(folder: Path) -> Path | bytes:
    """The weights as PEFT reads them: the file, or its content where the folder's are packed.

    Raises:
        ModelError: The packed file is damaged.
    """
    path = weights(folder)
    return _saved(tensors(folder)) if path.name == PACKED else path


def plain_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """The manifest of an adapter's plain form: it names other weights where the folder's are packed.

    Raises:
        ModelError: The packed file is damaged.
    """
    if manifest.storage == "plain":
        return manifest
    return replace(manifest, storage="plain", weights_sha256=sha256(plain_weights(folder)))


def _saved(values: Mapping[str, Tensor]) -> bytes:
    from safetensors.torch import save

    return save({name: value.contiguous() for name, value in values.items()}, {"format": "pt"})


@contextmanager
def plain(folder: Path) -> Iterator[Path]:
    """Within the context, a folder that PEFT reads: ``folder``, or a plain form of it where its weights are packed.

    Raises:
        ModelError: The packed file is damaged.
    """
    if weights(folder).name == WEIGHTS:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="loraloop-adapter-") as scratch:
        write(Path(scratch), tensors(folder), (folder / CONFIG).read_bytes())
        yield Path(scratch)


def plain_copy(folder: Path) -> Path:
    """Like :func:`plain`, for a program that may read it later: a copy that stays beside ``folder``.

    Its name says what it holds: another adapter has another one, and a copy that is there, which a program may be
    reading, stays as it is.

    Raises:
        ModelError: The packed file is damaged.
    """
    made = plain_weights(folder)
    if isinstance(made, Path):
        return folder
    config = (folder / CONFIG).read_bytes()
    copied = folder.with_name(f".{folder.name}.{sha256(config + made)[:16]}.plain")
    copied.mkdir(exist_ok=True)
    for name, content in {CONFIG: config, WEIGHTS: made}.items():
        if not (copied / name).is_file() or sha256(copied / name) != sha256(content):
            with atomic.write(copied / name) as stream:
                stream.write(content)
    return copied


def manifest_bytes(facts: Mapping[str, Any]) -> bytes:
    """A manifest as it is written; equal facts give equal bytes."""
    return json.dumps(facts, indent=2, sort_keys=True).encode() + b"\n"


@contextmanager
def reading(folder: Path) -> Iterator[None]:
    """Within the context, an adapter is read from ``folder`` onto a base.

    Raises:
        ModelError: The adapter is damaged, or its shapes do not fit the base.
    """
    from safetensors import SafetensorError

    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(f"the adapter in {folder} is damaged or does not fit the base: {error}") from error
