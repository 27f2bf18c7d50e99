"""``hydra/launcher=slurm``: every job a job of Slurm, through submitit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra_plugins.loraloop_launcher import _job
from hydra_plugins.loraloop_launcher._elsewhere import ElsewhereLauncher


class SlurmLauncher(ElsewhereLauncher):
    """Submits an array of jobs; they and what they give back lie in ``.submitit`` in the sweep's folder.

    Args:
        processes: Jobs that are submitted at a time.
        cluster: ``slurm``, or ``local`` for processes of this machine.
        timeout_min: Minutes after which Slurm ends a job.
        parameters: More of submitit's parameters, such as ``{cpus_per_task: 8, slurm_partition: gpu}``.
    """

    def __init__(self, processes: int, cluster: str, timeout_min: int, parameters: Mapping[str, Any]) -> None:
        super().__init__(processes)
        self.cluster, self.parameters = cluster, {"timeout_min": timeout_min, **parameters}
        self.remote = cluster != "local"

    def require(self) -> None:
        """See whether submitit is installed."""
        from loraloop.core.extras import require

        require("submitit", "slurm")

    def start(self, tasks: Sequence[_job.Task]) -> Sequence[Any]:
        """Submit the jobs."""
        import submitit

        folder = Path(str(self.config.hydra.sweep.dir)).absolute() / ".submitit"
        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        executor.update_parameters(**self.parameters)
        return executor.map_array(_job.carry_out, tasks)

    def wait(self, job: Any) -> Any:
        """What the job gave back."""
        return job.result()

    def cancel(self, jobs: Sequence[Any]) -> None:
        """Ask Slurm to end the jobs."""
        for job in jobs:
            job.cancel()
