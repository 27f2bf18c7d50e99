"""The jobs of a batch as they are composed, and their results as Hydra's sweepers read them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from loraloop.sweep.ending import LostTogetherError


def compose(
    context: HydraContext, master: DictConfig, job_overrides: Sequence[Sequence[str]], first: int
) -> list[DictConfig]:
    """The configuration of each job of a batch; ``first`` is the first one's number."""
    configs = []
    for number, overrides in enumerate(job_overrides, first):
        config = context.config_loader.load_sweep_config(master, list(overrides))
        with open_dict(config):
            config.hydra.job.id = str(number)
            config.hydra.job.num = number
        configs.append(config)
    return configs


def result(config: DictConfig, status: JobStatus, value: Any) -> JobReturn:
    """What a job returned or raised."""
    made = JobReturn(overrides=list(OmegaConf.to_container(config.hydra.overrides.task) or []))  # type: ignore[arg-type]
    made.status, made.return_value = status, value
    return made


def lost(config: DictConfig, cause: str, *, together: bool = False) -> JobReturn:
    """A job whose process ended without a result, its own or, ``together``, that of another one of its batch."""
    kind = LostTogetherError if together else ChildProcessError
    error = kind(f"the job's process ended without a result ({cause})")
    return result(config, JobStatus.FAILED, error)
