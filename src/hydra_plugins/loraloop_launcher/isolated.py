"""``hydra/launcher=isolated``: every job in a process of its own, which is ready in a twentieth of a second."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

PRELOADED = ["hydra_plugins.loraloop_launcher._preload"]


class IsolatedLauncher(Launcher):
    """Forks a process for each job from a server that has imported the libraries and run nothing.

    A plain fork of a process in which torch has run hangs; the server never runs it. What a job prints goes to
    ``console.txt`` in its folder.

    Args:
        processes: Jobs at a time.
    """

    def __init__(self, processes: int) -> None:
        self.trials_at_once = processes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives before the first batch."""
        self.hydra_context = hydra_context
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; a job whose process dies has a ``ChildProcessError`` for its result."""
        setup_globals()
        configs = [
            self._config(list(overrides), initial_job_idx + place) for place, overrides in enumerate(job_overrides)
        ]
        results: dict[int, JobReturn] = {}
        running: dict[Connection, tuple[int, ForkServerProcess]] = {}
        waiting = list(enumerate(configs))
        try:
            while waiting or running:
                while waiting and len(running) < self.trials_at_once:
                    place, config = waiting.pop(0)
                    connection, process = _start(config, self.trials_at_once)
                    running[connection] = (place, process)
                for connection in cast("list[Connection]", wait(list(running))):
                    place, process = running.pop(connection)
                    results[place] = _result(connection, process, configs[place])
        finally:
            for _, process in running.values():
                process.kill()
        return [results[place] for place in range(len(configs))]

    def _config(self, overrides: list[str], number: int) -> DictConfig:
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return config


def _start(config: DictConfig, at_once: int) -> tuple[Connection, ForkServerProcess]:
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, config, at_once))
    process.start()
    sender.close()  # or the end of the child would not be seen
    return receiver, process


def _result(connection: Connection, process: ForkServerProcess, config: DictConfig) -> JobReturn:
    result = JobReturn(overrides=list(OmegaConf.to_container(config.hydra.overrides.task) or []))  # type: ignore[arg-type]
    try:
        result.status, result.return_value = connection.recv()
    except (EOFError, ConnectionResetError):
        process.join()
        result.return_value = ChildProcessError(
            f"the job's process ended without a result ({_cause(process.exitcode)})"
        )
        result.status = JobStatus.FAILED
    process.join()
    connection.close()
    return result


def _cause(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


def _child(sender: Connection, config: DictConfig, at_once: int) -> None:
    from hydra._internal.callbacks import Callbacks

    from loraloop.__main__ import job

    setup_globals()
    with _apart(config):
        _share_cores(at_once)
        context = HydraContext(config_loader=None, callbacks=Callbacks(config))  # type: ignore[arg-type]
        done = run_job(
            hydra_context=context,
            task_function=job,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
    sender.send((done.status, _plain(done._return_value)))


@contextmanager
def _apart(config: DictConfig) -> Iterator[None]:
    folder = Path(str(config.hydra.sweep.dir)) / str(config.hydra.sweep.subdir)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "console.txt").open("a", encoding="utf8") as file, redirect_stdout(file), redirect_stderr(file):
        yield


def _share_cores(at_once: int) -> None:
    """One thread a core over all jobs: more would spend their time waiting for each other."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // at_once))


def _plain(value: Any) -> Any:
    """The result as it can be sent: an exception of a class that does not pickle keeps its text."""
    import pickle

    try:
        pickle.loads(pickle.dumps(value))  # noqa: S301 (our own bytes)
    except Exception:
        return RuntimeError(f"{type(value).__name__}: {value}")
    return value
