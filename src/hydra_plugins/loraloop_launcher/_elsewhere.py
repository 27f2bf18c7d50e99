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


class ElsewhereLauncher(Launcher):
    """Runs a batch of jobs in other processes; one that is lost costs itself where the program can tell which it was.

    Args:
        processes: Jobs at a time.
    """

    remote = False
    """Whether jobs run on machines that see no files of this one."""
    shares_fate = False
    """Whether one killed process ends the jobs of others too."""

    def __init__(self, processes: int) -> None:
        self.trials_at_once = processes

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives before the first batch, and see whether the program is installed."""
        self.hydra_context = hydra_context
        self.config = config
        self.require()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; a lost one has a ``ChildProcessError`` for its result."""
        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        configs = _configs.compose(self.hydra_context, self.config, job_overrides, initial_job_idx)
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
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            return _configs.lost(config, f"{type(error).__name__}: {first}", together=self.shares_fate)

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
        """Wait for a job; what :func:`_job.carry_out` returned there. Whatever it raises means that the job is lost."""

    @abstractmethod
    def cancel(self, jobs: Sequence[Any]) -> None:
        """End the jobs, after an interrupt of the sweep."""
