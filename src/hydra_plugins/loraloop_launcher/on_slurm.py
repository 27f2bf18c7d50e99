"""``hydra/launcher=slurm``: every job a job of Slurm, through submitit."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra_plugins.loraloop_launcher import _job
from hydra_plugins.loraloop_launcher._elsewhere import ElsewhereLauncher

POLL_SECONDS = 2.0
FILE_SECONDS = 30.0
"""Until a file that a job wrote on another machine is seen on this one: a shared folder may be late."""


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
        """Submit the jobs.

        Raises:
            ConfigError: This machine reaches no Slurm.
        """
        import submitit

        if self.remote:
            _require_slurm()

        folder = Path(str(self.config.hydra.sweep.dir)).absolute() / ".submitit"
        executor = submitit.AutoExecutor(folder=folder, cluster=self.cluster)
        executor.update_parameters(**self.parameters)
        return executor.map_array(_job.carry_out, tasks)

    def wait(self, job: Any) -> Any:
        """What the job gave back.

        submitit asks Slurm's accounting, after up to ten minutes, whether a job without a result still lives. Here
        the queue is asked, which every cluster has.
        """
        ended = None
        while self.remote and not job.paths.result_pickle.exists():
            if ended is None and not _queued(job.job_id):
                ended = time.monotonic()
            if ended is not None and time.monotonic() - ended > FILE_SECONDS:
                raise ChildProcessError(f"Slurm's job {job.job_id} has ended; what it printed is in {job.paths.stderr}")
            time.sleep(POLL_SECONDS)
        return job.result()

    def cancel(self, jobs: Sequence[Any]) -> None:
        """Ask Slurm to end the jobs."""
        for job in jobs:
            job.cancel()


def _require_slurm() -> None:
    from loraloop.errors import ConfigError

    try:
        asked = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True, check=False)
        said = "" if asked.returncode == 0 and shutil.which("sbatch") else asked.stderr.strip() or "sbatch is missing"
    except FileNotFoundError:
        said = "there is no program sinfo"
    if said:
        raise ConfigError(
            f"hydra.launcher.cluster=slurm: this machine submits no jobs to Slurm ({said.splitlines()[0]}): give the "
            "command on a machine that does, or set hydra.launcher.cluster=local for processes of this one"
        )


def _queued(job: str) -> bool:
    """Whether a job waits or runs; a controller that does not answer for a moment says nothing of it."""
    asked = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
    return bool(asked.stdout.strip()) if asked.returncode == 0 else "Invalid job id" not in asked.stderr
