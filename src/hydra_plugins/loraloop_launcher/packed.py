"""``hydra/launcher=packed``: the jobs of a multirun that differ only in their adapters train at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, open_dict


class PackedLauncher(Launcher):
    """Prepares every job as Hydra's own launcher does, then runs all of them together.

    Args:
        max_trials: The most that train at once; memory may allow fewer.
    """

    def __init__(self, max_trials: int) -> None:
        self.trials_at_once = max_trials

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives before the first batch."""
        from loraloop.workflows.multirun.cache import Cache

        self.hydra_context = hydra_context
        self.config = config
        self.cache = Cache()

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs; each keeps its own folder, configuration and result."""
        from loraloop.workflows.multirun import packed

        setup_globals()
        jobs = [
            self._prepare(list(overrides), initial_job_idx + place) for place, overrides in enumerate(job_overrides)
        ]
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        ready = [job for job in jobs if job.status == JobStatus.COMPLETED]
        for job, result in zip(
            ready, packed.run([job.return_value for job in ready], self.trials_at_once), strict=True
        ):
            job.return_value = result
            job.status = JobStatus.FAILED if isinstance(result, Exception) else JobStatus.COMPLETED
        return jobs

    def _prepare(self, overrides: list[str], number: int) -> JobReturn:
        """A job up to the point where its stage is built and checked; that stage is its return value."""
        config = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        return run_job(
            hydra_context=self.hydra_context,
            task_function=self._built,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )

    def _built(self, config: DictConfig) -> Any:
        from loraloop.__main__ import prepare

        return prepare(config, self.cache)
