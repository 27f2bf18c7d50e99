"""A job of a multirun as another process carries it out, on this machine or on another one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hydra import version
from hydra.core.utils import JobStatus, run_job, setup_globals
from hydra.types import HydraContext
from omegaconf import DictConfig


@dataclass(frozen=True, slots=True)
class Task:
    """What the other process is given.

    Attributes:
        config: The job's composed configuration.
        at_once: Jobs that share the machine's cores.
        base: Hydra's ``version_base``.
        loraloop: The version of loraloop that composed it.
        folder: The working directory to which its paths are relative.
    """

    config: DictConfig
    at_once: int
    base: Any
    loraloop: str
    folder: str


def task(config: DictConfig, at_once: int) -> Task:
    """What another process needs for a job of this one."""
    from loraloop import __version__

    return Task(config, at_once, version.getbase(), __version__, str(Path.cwd()))


def carry_out(given: Task) -> tuple[JobStatus, Any]:
    """Run the job in this process; its status, and its value or exception as it can be sent.

    What the job prints goes to ``console.txt`` in its folder.
    """
    from loraloop.__main__ import job
    from loraloop.core.signals import sigterm_raises

    if refused := refusal(given):
        return JobStatus.FAILED, refused
    os.chdir(given.folder)
    version.VersionBase.instance().setbase(given.base)  # without it, Hydra would run the job in a folder of its own
    setup_globals()
    with sigterm_raises(), _apart(given.config):
        _share_cores(given.at_once)
        done = run_job(
            hydra_context=HydraContext(config_loader=None, callbacks=_callbacks(given.config)),  # type: ignore[arg-type]
            task_function=job,
            config=given.config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    return done.status, _plain(done._return_value)


def refusal(given: Task) -> Exception | None:
    """Why this machine must not carry the job out; ``None`` if it may."""
    from loraloop import __version__
    from loraloop.errors import ConfigError

    if given.loraloop != __version__:
        return ConfigError(
            f"{socket.gethostname()} has loraloop {__version__}, and the sweep runs on {given.loraloop}: their trials "
            f"would not compare; pip install loraloop=={given.loraloop} there"
        )
    if not Path(given.folder).is_dir():
        return ConfigError(
            f"{socket.gethostname()} has no folder {given.folder}, in which the sweep was started: start it in one "
            "that all machines share"
        )
    return None


def _callbacks(config: DictConfig) -> Any:
    from hydra._internal.callbacks import Callbacks

    return Callbacks(config)


@contextmanager
def _apart(config: DictConfig) -> Iterator[None]:
    from loraloop.core.console import output_into

    folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
    folder.mkdir(parents=True, exist_ok=True)
    with output_into(folder / "console.txt"):
        yield


def _share_cores(at_once: int) -> None:
    """One thread a core over all jobs: more would spend their time waiting for each other."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, _threads() // at_once))


@cache
def _threads() -> int:
    """The threads of this process before its first job: a pool's process stays for the next ones."""
    import torch

    return torch.get_num_threads()


def _plain(value: Any) -> Any:
    """The result as it can be sent: an exception of a class that does not pickle keeps its text."""
    import pickle

    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 (our own bytes)
    except Exception:
        return RuntimeError(f"{type(value).__name__}: {value}")
    return value
