"""An adapter's folder and its manifest: what it must hold, and whether it fits a base."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from loraloop.core import adapter_files, atomic, packing, quantisation
from loraloop.core.adapter_files import CONFIG, MANIFEST, WEIGHTS
from loraloop.core.hashing import sha256, sha256_json
from loraloop.errors import ArtefactError, ModelError
from loraloop.records import Base, Manifest, Parity
from loraloop.registry import weights

PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
PICKLED = "adapter_model.bin"
"""PEFT's weights before safetensors."""
ORIGIN = (
    "run_id", "parent_run_id", "continued_from", "compressed_from", "combined_from", "loraloop_version", "probe",
    "storage", "general", "parity", "lm_eval",
)  # fmt: skip
"""Manifest keys that say where an adapter came from or what follows from its weights, not what it is."""

LATER = ("quantizer", "block_size")
"""Keys of the base that manifests of earlier versions lack."""


def read(folder: Path) -> Manifest:
    """The manifest beside the weights.

    Raises:
        ArtefactError: It is missing or not a manifest.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ArtefactError(
            f"{folder} has no {MANIFEST}, so its base cannot be checked; register it on its base: "
            "stage=register adapter=FOLDER model.name=BASE"
        )
    try:
        return _manifests().validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"])) or MANIFEST
        raise ArtefactError(f"{path} is damaged ({where}: {problem['msg']}); restore it or register again") from error


@cache
def _manifests() -> TypeAdapter[Manifest]:
    """What reads manifests: making it takes longer than to read one."""
    return TypeAdapter(Manifest)


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest beside the weights."""
    with atomic.write(folder / MANIFEST) as stream:
        stream.write(adapter_files.manifest_bytes(manifest.to_dict()))


def note_parity(folder: Path, made: Parity) -> None:
    """Write how an export answered into the manifest, in place of an earlier comparison of the same; nothing else."""
    manifest = read(folder)
    others = [each for each in manifest.parity if each.name != made.name]
    facts = json.loads((folder / MANIFEST).read_bytes())
    with atomic.write(folder / MANIFEST) as stream:
        stream.write(adapter_files.manifest_bytes(facts | {"parity": [asdict(each) for each in (*others, made)]}))


def verify(folder: Path, manifest: Manifest) -> None:
    """Check that a folder holds exactly the adapter that the manifest describes, and nothing that runs code.

    Raises:
        ArtefactError: A file is missing, truncated, altered, pickled or not finite, or differs from the manifest.
    """
    require_files(folder)
    _require_no_pickles(folder)
    path = adapter_files.weights(folder)
    found = sha256(path)
    if found != manifest.weights_sha256:
        raise ArtefactError(
            f"{path} has SHA-256 {found[:12]}..., the manifest says {manifest.weights_sha256[:12]}...: "
            "it was altered or cut short; restore it, or register the adapter again"
        )
    _verify_config(folder, manifest)
    _verify_tensors(path, manifest)


def verify_adapter(base: Base, manifest: Manifest) -> None:
    """Check that an adapter was trained on ``base``, or on the same weights where one of both is not quantised.

    Raises:
        ModelError: It was trained on another base or tokenizer, or one that is quantised otherwise; names both.
    """
    trained = manifest.base
    if (trained.sha256, trained.tokenizer_sha256) == (base.sha256, base.tokenizer_sha256):
        other = quantisation.mismatch(trained, base)
        if other and "none" not in (trained.quantization, base.quantization):
            raise ModelError(
                f"the adapter was trained on {trained.name} with {other}: choose the same, or train a new adapter"
            )
        return
    what = "base" if trained.sha256 != base.sha256 else "tokenizer"
    raise ModelError(
        f"the adapter was trained on another {what}: {_identity(trained)}, and model is {_identity(base)}; "
        f"choose the model that it was trained on (model.name={trained.name}) or train a new adapter"
    )


def content_sha256(folder: Path, manifest: Manifest) -> str:
    """Hash of what an adapter is (weights, configuration, base, data), the same whichever run made it."""
    facts = {key: value for key, value in manifest.to_dict().items() if key not in ORIGIN}
    # Adapters of before these were recorded keep their name.
    facts["base"] = {key: value for key, value in facts["base"].items() if key not in LATER or value is not None}
    settings = {key: _sorted(value) for key, value in config(folder).items()}
    for key in ("base_model_name_or_path", "peft_version"):
        settings.pop(key, None)
    return sha256_json([facts, settings])


def require_files(folder: Path) -> None:
    """Check that a folder holds PEFT's two files.

    Raises:
        ArtefactError: One is missing; the message says what is there, and how a pickle becomes safetensors.
    """
    if not folder.is_dir():
        raise ArtefactError(f"the adapter folder {folder} does not exist")
    missing = [path.name for path in (folder / CONFIG, adapter_files.weights(folder)) if not path.is_file()]
    if not missing:
        return
    there = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    pickled = (
        f". {PICKLED} is a pickle, which runs code when loaded, and is never read: where you trust it, load it with "
        "PEFT and save it again with save_pretrained(FOLDER), which writes safetensors"
        if WEIGHTS in missing and (folder / PICKLED).exists()
        else ""
    )
    raise ArtefactError(f"{folder} lacks {' and '.join(missing)}; it holds {there}{pickled}")


def config(folder: Path) -> dict[str, Any]:
    """PEFT's configuration of an adapter.

    Raises:
        ArtefactError: It is not a JSON object.
    """
    try:
        found = json.loads((folder / CONFIG).read_bytes())
    except ValueError as error:
        raise ArtefactError(f"{folder / CONFIG} is not JSON ({error})") from error
    if not isinstance(found, dict):
        raise ArtefactError(f"{folder / CONFIG} holds {type(found).__name__}, not a JSON object")
    return found


def _require_no_pickles(folder: Path) -> None:
    pickles = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix.lower() in PICKLES)
    if pickles:
        raise ArtefactError(
            f"{folder} holds pickle files, which run code when loaded: {', '.join(pickles)}; remove them, "
            "only safetensors are registered"
        )


def _verify_config(folder: Path, manifest: Manifest) -> None:
    found = config(folder)
    rules = {"peft_type": "LORA", "r": manifest.rank, "lora_alpha": manifest.alpha}
    wrong = [f"{key}={found.get(key)!r}, not {rule!r}" for key, rule in rules.items() if found.get(key) != rule]
    if wrong:
        raise ArtefactError(f"{folder / CONFIG} differs from the manifest: {', '.join(wrong)}")


def _verify_tensors(path: Path, manifest: Manifest) -> None:
    names = weights.names(path)
    if (kept := packing.storage(names)) != manifest.storage:
        raise ArtefactError(f"{path} holds {kept} weights and the manifest says {manifest.storage}; register it again")
    # PEFT ignores keys with another prefix without a word, and the adapter then answers like its base.
    foreign = [name for name in names if not name.startswith("base_model.model.")]
    if foreign or not any(".lora_A." in name for name in names):
        raise ArtefactError(
            f"{path} holds no LoRA weights in PEFT's layout (found {(foreign or names or ['none'])[0]})"
        )
    broken = weights.not_finite(path)
    if broken:
        raise ArtefactError(f"{path}: {len(broken)} of {len(names)} tensors hold NaN or infinity, first {broken[0]}")


def _sorted(value: Any) -> Any:
    # PEFT writes sets (target_modules) as lists in an order that differs between processes.
    return sorted(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


def _identity(base: Base) -> str:
    return (
        f"{base.name} (revision {base.revision or 'none'}, sha256 {base.sha256[:12]}, "
        f"tokenizer {base.tokenizer_sha256[:12]})"
    )
