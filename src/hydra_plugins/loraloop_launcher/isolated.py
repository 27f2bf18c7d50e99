"""``hydra/launcher=isolated``: every job in a process of its own, which is ready in a twentieth of a second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, cast

from hydra.core.utils import JobReturn, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.loraloop_launcher import _configs, _job

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

PRELOADED = ["hydra_plugins.loraloop_launcher._preload"]
GRACE_SECONDS = 15
"""After an interrupt of the sweep; Kubernetes and Slurm kill what is not gone after 30 s."""


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
        configs = _configs.compose(self.hydra_context, self.config, job_overrides, initial_job_idx)
        results: dict[int, JobReturn] = {}
        running: dict[Connection, tuple[int, ForkServerProcess]] = {}
        waiting = list(enumerate(configs))
        try:
            while waiting or running:
                while waiting and len(running) < self.trials_at_once:
                    place, config = waiting.pop(0)
                    connection, process = _start(_job.task(config, self.trials_at_once))
                    running[connection] = (place, process)
                for connection in cast("list[Connection]", wait(list(running))):
                    place, process = running.pop(connection)
                    results[place] = _result(connection, process, configs[place])
        finally:
            _end([process for _, process in running.values()])
        return [results[place] for place in range(len(configs))]


def _start(task: _job.Task) -> tuple[Connection, ForkServerProcess]:
    context = get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(sender, task))
    process.start()
    sender.close()  # or the end of the child would not be seen
    return receiver, process


def _end(processes: Sequence[ForkServerProcess]) -> None:
    """Let jobs close their runs before they are killed."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + GRACE_SECONDS
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        process.kill()


def _result(connection: Connection, process: ForkServerProcess, config: DictConfig) -> JobReturn:
    try:
        result = _configs.result(config, *connection.recv())
    except (EOFError, ConnectionResetError):
        process.join()
        result = _configs.lost(config, _cause(process.exitcode))
    process.join()
    connection.close()
    return result


def _cause(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


def _child(sender: Connection, task: _job.Task) -> None:
    done = _job.carry_out(task)
    with suppress(BrokenPipeError):  # the sweep was killed meanwhile
        sender.send(done)
