"""``hydra/launcher=ray``: every job a task of a Ray cluster, on this machine or on many."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from hydra_plugins.loraloop_launcher import _job
from hydra_plugins.loraloop_launcher._elsewhere import ElsewhereLauncher

STORE_BYTES = 100 * 2**20
"""Of a cluster on this machine: what jobs are given and give back is small."""


class RayLauncher(ElsewhereLauncher):
    """Each job has a process of its own on a node that has the cores and GPUs for it.

    Args:
        processes: Jobs that are handed over at a time.
        address: A running cluster, such as ``auto`` or ``ray://HOST:10001``; ``None`` starts one on this machine.
        cpus: Cores that a job takes.
        gpus: GPUs that a job takes.
    """

    def __init__(self, processes: int, address: str | None, cpus: float, gpus: float) -> None:
        super().__init__(processes)
        self.address, self.cpus, self.gpus = address, cpus, gpus
        self.remote = address is not None

    def require(self) -> None:
        """See whether Ray is installed."""
        from loraloop.core.extras import require

        require("ray", "ray")

    def start(self, tasks: Sequence[_job.Task]) -> Sequence[Any]:
        """Hand the jobs to the cluster.

        Raises:
            ConfigError: None answers at the address.
        """
        import ray

        if not ray.is_initialized():
            self._connect()
        # The sweep itself tries a lost job again, and says so in its study.
        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1)(_job.carry_out)
        return [remote.remote(task) for task in tasks]

    def _connect(self) -> None:
        import ray

        from loraloop.errors import ConfigError

        own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": STORE_BYTES}
        more = own if self.address is None else {}
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.WARNING, **more)
        except (ConnectionError, ray.exceptions.RayError) as error:
            first = str(error).strip().partition("\n")[0]
            raise ConfigError(
                f"hydra.launcher.address={self.address}: no cluster of Ray answers ({first}): start one with "
                "`ray start --head`, set RAY_AUTH_MODE=token where it asks for its token, or leave the address out for "
                "a cluster on this machine"
            ) from error

    def wait(self, job: Any) -> Any:
        """What the job gave back."""
        import ray

        return ray.get(job)

    def cancel(self, jobs: Sequence[Any]) -> None:
        """End the jobs on their nodes."""
        import ray

        for job in jobs:
            ray.cancel(job, force=True)
