"""Memory of the device that trains: the peak of this process, what is free, and what to do when there is none."""

from __future__ import annotations

import contextlib
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import device as Device

T = TypeVar("T")

CGROUPS = Path("/sys/fs/cgroup")
HOLES = 1.5  # resident over live bytes of large tensors on a CPU: glibc's heap; measured 1.3 to 1.6 in packs
STATUS = Path("/proc/self/status")


def reset_peak(device: Device) -> None:
    """Forget earlier peaks where the system allows it, so that a run after a larger one reports its own."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: resets VmHWM to the resident size


def peak(device: Device) -> int:
    """Most bytes allocated on the GPU, or resident in RAM (Linux: since the last reset)."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    with contextlib.suppress(OSError, StopIteration):
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free(gpu: bool) -> int:
    """Bytes that can still be had on the GPU, or in RAM within the limits of the container."""
    if gpu:
        import torch

        unused = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        return int(torch.cuda.mem_get_info()[0]) + unused
    import psutil

    return min([int(psutil.virtual_memory().available), *_container_rooms(CGROUPS, Path("/proc/self/cgroup"))])


def _container_rooms(root: Path, membership: Path) -> list[int]:
    """What each control group that this process is in leaves it (cgroup v2 and v1), file caches not counted as used."""
    with contextlib.suppress(OSError):
        lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
        trees = [
            (root / ("memory" if names else ""), Path(path.lstrip("/")))
            for _, names, path in lines
            if names in ("", "memory") or "memory" in names.split(",")
        ]
        folders = [tree / part for tree, path in trees for part in (path, *path.parents)]
        return [room for folder in dict.fromkeys(folders) if (room := _container_room(folder)) is not None]
    return []


def _container_room(folder: Path) -> int | None:
    for limit, usage in (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")):
        with contextlib.suppress(OSError, ValueError):  # "max" is no limit
            bound = int((folder / limit).read_text())
            facts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = int(facts.get("total_inactive_file", facts.get("inactive_file", 0)))
            return max(0, bound - int((folder / usage).read_text()) + cached)
    return None


def unless_memory_runs_out(work: Callable[[], T]) -> T | None:
    """What ``work`` returns, or ``None`` where there is not enough memory for it."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not _is_out_of_memory(error):
            raise
    _give_back()  # outside the handler, whose traceback keeps the tensors alive
    return None


def _is_out_of_memory(error: Exception) -> bool:
    import torch

    # On a CPU, torch raises a plain RuntimeError with this text.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def _give_back() -> None:
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
