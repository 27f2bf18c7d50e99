"""What a run ran on, as tags: the git checkout, package versions and the hardware."""

from __future__ import annotations

import getpass
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

PACKAGES = ("loraloop", "torch", "transformers", "peft", "trl", "bitsandbytes", "mlflow")


def tags(folder: Path) -> dict[str, str]:
    """All facts known now, for a run started in ``folder``; a fact that cannot be had is left out."""
    return {**user(), **git(folder), **versions(), **hardware(), **accelerators()}


def user() -> dict[str, str]:
    """Who started the run and with which program, under the names that the MLflow UI shows."""
    known = {"mlflow.source.name": Path(sys.argv[0]).name or "python", "mlflow.source.type": "LOCAL"}
    try:
        known["mlflow.user"] = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number without a name
        known["mlflow.user"] = str(os.getuid())
    return known


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def git(folder: Path) -> dict[str, str]:
    """Commit, branch and whether anything is uncommitted; empty outside a checkout."""
    commit = _git(folder, "rev-parse", "HEAD")
    if not commit:
        return {}
    known = {"mlflow.source.git.commit": commit}
    if branch := _git(folder, "branch", "--show-current"):
        known["mlflow.source.git.branch"] = branch
    if (changes := _git(folder, "status", "--porcelain")) is not None:
        known["mlflow.source.git.dirty"] = str(bool(changes)).lower()
    return known


def versions() -> dict[str, str]:
    """``version.NAME`` of Python and of every installed package that shapes a result, without importing them."""
    known = {"version.python": platform.python_version()}
    for package in PACKAGES:
        try:
            known[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return known


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or platform.machine()


def hardware() -> dict[str, str]:
    """``hardware.cpu``, ``hardware.cores`` (usable by this process) and ``hardware.memory_gib``."""
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = psutil.virtual_memory().total / 2**30
    return {"hardware.cpu": _processor(), "hardware.cores": str(cores), "hardware.memory_gib": f"{memory:.1f}"}


def accelerators() -> dict[str, str]:
    """``hardware.gpu`` once torch is loaded and sees one; torch itself is never imported for it."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    names = (torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return {"hardware.gpu": ", ".join(names)}
