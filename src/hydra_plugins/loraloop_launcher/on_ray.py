"""``hydra/launcher=ray``: every job a task of a Ray cluster, on this machine or on many."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from hydra_plugins.loraloop_launcher import _job
from hydra_plugins.loraloop_launcher._elsewhere import ElsewhereLauncher, first_sentence
from hydra_plugins.loraloop_launcher.isolated import GRACE_SECONDS
from loraloop import __version__
from loraloop.core.extras import require
from loraloop.core.patience import within
from loraloop.core.signals import sigterm_kept
from loraloop.errors import ConfigError
from loraloop.sweep.ending import LostTogetherError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 40.0
"""A busy machine takes ten seconds."""
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
        require("ray", "ray")

    def start(self, tasks: Sequence[_job.Task]) -> Sequence[Any]:
        """Hand the jobs to the cluster.

        Raises:
            ConfigError: None answers at the address, no node has the cores and GPUs, or one has another loraloop.
        """
        import ray

        if not ray.is_initialized():
            self._connect()
            self._ask_nodes(tasks[0])
        # The sweep itself tries a lost job again, and says so in its study.
        remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=0, max_calls=1)(_job.carry_out)
        return [remote.remote(task) for task in tasks]

    def _connect(self) -> None:
        import ray

        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        try:
            if self.address is None:
                _start_here(quiet)
            else:  # in a thread, for Ray itself waits for a quarter of an hour
                within(CONNECT_SECONDS, lambda: ray.init(address=self.address, **quiet))
        except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            said = first_sentence(error) if str(error) else f"no answer within {CONNECT_SECONDS:.0f} s"
            raise ConfigError(
                f"hydra.launcher.address={self.address}: no cluster of Ray answers ({said}): start one with "
                "`ray start --head`, set RAY_AUTH_MODE=token where it asks for its token, or leave the address out for "
                "a cluster on this machine"
            ) from error

    def _ask_nodes(self, task: _job.Task) -> None:
        """Ask each node that may get a job whether it would carry it out."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        ray: Any = require("ray", "ray")
        needed = {"CPU": self.cpus, "GPU": self.gpus}
        nodes = [node for node in ray.nodes() if node["Alive"]]
        fit = [node for node in nodes if all(node["Resources"].get(key, 0) >= most for key, most in needed.items())]
        if not fit:
            self._too_small(nodes)
        if not self.remote:
            return
        asked = []
        for node in fit:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            ask = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_job.refusal)
            asked.append((node["NodeName"], ask.remote(task)))
        if refused := [said for name, answer in asked if (said := _refused(name, answer))]:
            raise ConfigError("; ".join(refused))

    def _too_small(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        has = "; ".join(f"{each['NodeName']} has {_amounts(each['Resources'])}" for each in nodes)
        said = f"hydra.launcher.cpus={self.cpus} hydra.launcher.gpus={self.gpus}: no node has these for one job ({has})"
        if not self.remote:
            raise ConfigError(f"{said}: ask for less")
        log.warning("%s: jobs wait until such a node joins", said)  # an autoscaler may start one

    def wait(self, job: Any) -> Any:
        """What the job gave back.

        Raises:
            LostTogetherError: The job's node is dead, and with it every job on it.
        """
        import ray

        try:
            return ray.get(job)
        except ray.exceptions.NodeDiedError as error:
            raise LostTogetherError from error

    def cancel(self, jobs: Sequence[Any]) -> None:
        """Interrupt the jobs, so that they end their runs, and kill those that have not ended soon."""
        import ray

        for force in (False, True):
            for job in jobs:
                ray.cancel(job, force=force)
            if jobs and not force:
                ray.wait(list(jobs), num_returns=len(jobs), timeout=GRACE_SECONDS)


def _start_here(quiet: Mapping[str, Any]) -> None:
    """Start a cluster on this machine; its processes end with the thread that starts them."""
    import ray

    with sigterm_kept():
        ray.init(address="local", include_dashboard=False, object_store_memory=STORE_BYTES, **quiet)


def _amounts(resources: Mapping[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} cores and {resources.get('GPU', 0):g} GPUs"


def _refused(name: str, answer: Any) -> str | None:
    """Why a node would carry no job out; one that died meanwhile would get none."""
    import ray

    try:
        error = ray.get(answer)
    except (ray.exceptions.NodeDiedError, ray.exceptions.TaskUnschedulableError):
        return None
    except ray.exceptions.RayError as failed:
        return f"{name} cannot run loraloop ({first_sentence(failed)}): pip install loraloop=={__version__} there"
    return None if error is None else str(error)
