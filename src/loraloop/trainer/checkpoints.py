"""Checkpoints that prove themselves: a manifest, written last, with the SHA-256 of every file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from loraloop.core import atomic
from loraloop.core.hashing import sha256
from loraloop.errors import TrainingError

MANIFEST = "manifest.json"
ADDED: Mapping[str, tuple[Any, ...]] = {
    "trainer.loss_on": ("assistant", "last"),  # rows had one turn, which is learned by either
    "trainer.too_long": ("drop",),
    "trainer.processes": (1,),
    "trainer.sharding": ("none",),
}
"""Inputs that checkpoints of earlier versions do not name, each with the values that do what those versions did."""

OTHERS = "to go on with an adapter write continue_from=models:/NAME@champion, and for a new adapter leave resume out"
METHOD, BEGUN = "method", "begin_from"
"""Inputs that are told in other words than their value: the trainer's name, the hash of the weights at the start."""

SIZES = ("batch_size", "accumulation", "processes")
"""Settings whose product is the number of rows of a step."""
SPLIT = (*(f"trainer.{name}" for name in (*SIZES, "micro_batch")), "choices.micro_batch", "choices.accumulation")


def write_manifest(folder: Path, inputs: Mapping[str, Any]) -> None:
    """Write the manifest of a complete checkpoint.

    Args:
        folder: The checkpoint.
        inputs: What decides the result: settings, adapter, data and base.
    """
    files = {path.relative_to(folder).as_posix(): sha256(path) for path in _files(folder)}
    with atomic.write(folder / MANIFEST) as stream:
        stream.write(json.dumps({"inputs": inputs, "files": files}, indent=2, sort_keys=True).encode())


def verify(folder: Path) -> str | None:
    """Why a checkpoint cannot be trusted, or ``None``."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
    except (OSError, ValueError, KeyError):
        return "it has no readable manifest, so it was never completed"
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if sha256(path) != digest:
            return f"{name} is damaged"
    return None


def newest(resume: Path, inputs: Mapping[str, Any]) -> Path:
    """The newest checkpoint below ``resume`` that verifies and continues the same run.

    Args:
        resume: One checkpoint, a folder of checkpoints, or the output folder of the run to resume.
        inputs: What decides the result now.

    Raises:
        TrainingError: None verifies, or the newest one that does began from other inputs.
    """
    folder = sound(resume)
    _require_same(folder, inputs)
    return folder


def sound(resume: Path) -> Path:
    """The newest checkpoint below ``resume`` that verifies.

    Args:
        resume: One checkpoint, a folder of checkpoints, or the output folder of the run to resume.

    Raises:
        TrainingError: There is no such folder, or no checkpoint in it verifies.
    """
    if not resume.is_dir():
        fault = "is a file" if resume.exists() else f"does not exist (seen from {Path.cwd()})"
        raise TrainingError(
            f"resume={resume} {fault}: name the folder of an interrupted run, mlruns/jobs/...; {OTHERS}"
        )
    if resume.name.startswith("checkpoint-"):
        found = [resume]
    else:
        found = [path for place in (resume, resume / "checkpoints") for path in place.glob("checkpoint-*")]
    faults = []
    for folder in sorted(found, key=_step, reverse=True):
        reason = verify(folder)
        if reason is None:
            return folder
        faults.append(f"{folder.name}: {reason}")
    raise TrainingError(
        f"resume={resume} holds no checkpoint to go on from ({'; '.join(faults) or 'there is none'}): {OTHERS}"
    )


def _require_same(folder: Path, inputs: Mapping[str, Any]) -> None:
    then = _flat(json.loads((folder / MANIFEST).read_bytes())["inputs"])
    now = _flat(json.loads(json.dumps(inputs)))
    method, asked = then.pop(METHOD, None), now.pop(METHOD, None)
    if method not in (asked, None):  # one of before names none
        raise TrainingError(
            f"{folder.name} is of trainer={method}, and trainer={asked} cannot go on from it: write trainer={method}; "
            f"{OTHERS}"
        )
    if _processes(then) != _processes(now) and _rows(then) == _rows(now):
        # The same rows make a step, shared out otherwise: the result is the same but for rounding and dropout's masks.
        then, now = ({key: value for key, value in each.items() if key not in SPLIT} for each in (then, now))
    changed = [
        _change(key, then.get(key, ADDED[key][0] if key in ADDED else None), now.get(key))
        for key in {**then, **now}
        if then.get(key) != now.get(key) and (key in then or now[key] not in ADDED.get(key, ()))
    ]
    if changed:
        raise TrainingError(
            f"{folder.name} cannot be resumed to the same result: {'; '.join(changed)}. Restore these; {OTHERS}"
        )


def _change(key: str, then: Any, now: Any) -> str:
    if key != BEGUN:
        return f"{key} was {then}, is {now}"
    was, found = (f"the adapter with weights {value[:12]}" if value else "left out" for value in (then, now))
    back = "write the version that the run's parameter continued_from names" if then else "leave it out"
    return f"continue_from was {was}, is {found} ({back})"


def _processes(inputs: Mapping[str, Any]) -> int:
    return int(inputs.get("trainer.processes", 1))


def _rows(inputs: Mapping[str, Any]) -> int:
    return math.prod(int(inputs.get(f"trainer.{name}", 1)) for name in SIZES)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(_flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)


def _step(folder: Path) -> int:
    digits = folder.name.removeprefix("checkpoint-")
    return int(digits) if digits.isdigit() else -1
