"""What launchers have in common that hand their jobs to another program: joblib, Ray, Slurm."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, configure_log, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from hydra_plugins.loraloop_launcher import _configs, _job
from loraloop.errors import ConfigError
from loraloop.sweep.ending import LostTogetherError


class ElsewhereLauncher(Launcher):
    """Runs a batch of jobs in other processes; one that is lost costs itself where the program can tell which it was.

    Args:
        processes: Jobs at a time.
    """

    remote = False
    """Whether jobs run on machines that see no files of this one."""

    def __init__(self, processes: int) -> None:
        self.trials_at_once = processes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives before the first batch, and see whether the program is installed."""
        self.hydra_context = hydra_context
        self.config = config
        self.require()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; a lost one has a ``ChildProcessError`` for its result.

        Raises:
            ConfigError: The jobs' machines do not reach what they are to use; none was handed over.
        """
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        configs = _configs.compose(self.hydra_context, self.config, job_overrides, initial_job_idx)
        if self.remote:
            _require_server(configs[0])
        begun: list[Any] = []
        try:
            begun += self.start([self._task(config) for config in configs])
            return [self._result(config, job) for config, job in zip(configs, begun, strict=True)]
        except BaseException:
            self.cancel(begun)
            raise

    def _task(self, config: DictConfig) -> _job.Task:
        return _job.task(config, 1 if self.remote else self.trials_at_once)

    def _result(self, config: DictConfig, job: Any) -> JobReturn:
        try:
            return _configs.result(config, *self.wait(job))
        except LostTogetherError as error:
            return _configs.lost(config, first_sentence(error.__cause__ or error), together=True)
        except Exception as error:
            return _configs.lost(config, first_sentence(error))

    @abstractmethod
    def require(self) -> None:
        """See whether the program is installed.

        Raises:
            MissingDependencyError: It is not; the message holds the line that installs it.
        """

    @abstractmethod
    def start(self, tasks: Sequence[_job.Task]) -> Sequence[Any]:
        """Hand the jobs over."""

    @abstractmethod
    def wait(self, job: Any) -> Any:
        """Wait for a job; what :func:`_job.carry_out` returned there. Whatever it raises means that the job is lost.

        Raises:
            LostTogetherError: What ended it, its cause, ended others too, and nobody knows whose fault it was.
        """

    @abstractmethod
    def cancel(self, jobs: Sequence[Any]) -> None:
        """End the jobs, after an interrupt of the sweep."""


def _require_server(config: DictConfig) -> None:
    tracker = config.get("tracker") or {}
    if tracker.get("uri", "") is None:
        raise ConfigError(
            f"tracker.uri=null is a SQLite file in {tracker.folder} of this machine, and the launcher's jobs run on "
            "others: log to a server that they reach, tracker.uri=http://HOST:PORT, or nowhere, tracker=none"
        )


def first_sentence(error: BaseException) -> str:
    """An error's class and the first sentence of what it says; Ray's go on for a page."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0].partition('. ')[0]}"
