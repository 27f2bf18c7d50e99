"""``hydra/launcher=packed``: the jobs of a multirun that differ only in their adapters train at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

if TYPE_CHECKING:
    from loraloop.records import Call


class Study(Protocol):
    """A sweeper that is told of results while others train, and fills the places that they leave."""

    def ended(self, place: int, returned: object) -> None:
        """Take what the job at this place of the batch returned or raised."""

    def more(self, free: int) -> Sequence[Sequence[str]]:
        """Overrides of the next jobs, at most ``free``."""


class PackedLauncher(Launcher):
    """Prepares every job as Hydra's own launcher does, then runs all of them together.

    Args:
        max_trials: The most that train at once; memory may allow fewer.

    Attributes:
        study: Set by a sweeper that wants places refilled.
    """

    study: Study | None = None

    def __init__(self, max_trials: int) -> None:
        self.trials_at_once = max_trials

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra gives before the first batch."""
        from loraloop.workflows.multirun.cache import Cache

        self.hydra_context = hydra_context
        self.config = config
        self.cache = Cache()
        self._first: tuple[DictConfig, list[Override]] | None = None

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run a batch of jobs and those that take their places; each has its own folder, configuration and result."""
        from loraloop.workflows.multirun import packed

        setup_globals()
        supply = _Supply(self, initial_job_idx)
        packed.run(supply.prepare(job_overrides), self.trials_at_once, supply)
        return supply.jobs

    def prepare(self, overrides: list[str], number: int) -> JobReturn:
        """A job up to the point where its stage is built and checked; that stage is its return value."""
        config = self._compose(overrides)
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

    def _compose(self, overrides: list[str]) -> DictConfig:
        """The configuration of a job, made from an earlier one where only plain values differ."""
        loader = self.hydra_context.config_loader
        read = OverridesParser.create(loader).parse_overrides(overrides)
        if self._first is not None and (config := _changed(*self._first, read)) is not None:
            return config
        config = loader.load_sweep_config(self.config, overrides)
        self._first = (copy.deepcopy(config), read)
        return config

    def _built(self, config: DictConfig) -> Any:
        from loraloop.__main__ import prepare

        return prepare(config, self.cache)


def _changed(config: DictConfig, before: Sequence[Override], now: Sequence[Override]) -> DictConfig | None:
    """``config`` with other values of the same keys; ``None`` where Hydra has to compose it."""
    differing = [new for old, new in zip(before, now, strict=False) if new.input_line != old.input_line]
    same = [each.key_or_group for each in before] == [each.key_or_group for each in now]
    groups = config.hydra.runtime.choices
    if not same or any(each.key_or_group in groups or each.is_delete() for each in differing):
        return None
    made = copy.deepcopy(config)
    lines = {old.input_line: new.input_line for old, new in zip(before, now, strict=True)}
    with read_write(made), open_dict(made):
        for each in differing:
            OmegaConf.update(made, each.key_or_group, each.value(), force_add=True)
        for kept in (made.hydra.overrides.task, made.hydra.overrides.hydra):
            kept[:] = [lines.get(line, line) for line in kept]
        naming = made.hydra.job.config.override_dirname
        named = [each for each in now if each.input_line in made.hydra.overrides.task]
        made.hydra.job.override_dirname = get_overrides_dirname(
            named, kv_sep=naming.kv_sep, item_sep=naming.item_sep, exclude_keys=naming.exclude_keys
        )
    return made


class _Supply:
    """The jobs of one launch; ``calls`` of those that could be prepared are numbered by themselves."""

    def __init__(self, launcher: PackedLauncher, first: int) -> None:
        self.launcher, self.first = launcher, first
        self.jobs: list[JobReturn] = []
        self._places: list[int] = []

    def prepare(self, job_overrides: Sequence[Sequence[str]]) -> list[Call]:
        calls = []
        for overrides in job_overrides:
            place = len(self.jobs)
            job = self.launcher.prepare(list(overrides), self.first + place)
            self.jobs.append(job)
            if job.status == JobStatus.COMPLETED:
                self._places.append(place)
                calls.append(job.return_value)
            else:
                self._told(place)
        configure_log(self.launcher.config.hydra.hydra_logging, self.launcher.config.hydra.verbose)
        return calls

    def tell(self, index: int, result: Any) -> None:
        place = self._places[index]
        self.jobs[place].return_value = result
        self.jobs[place].status = JobStatus.FAILED if isinstance(result, Exception) else JobStatus.COMPLETED
        self._told(place)

    def more(self, free: int) -> list[Call]:
        study = self.launcher.study
        return self.prepare(study.more(free)) if study else []

    def _told(self, place: int) -> None:
        if self.launcher.study:
            self.launcher.study.ended(place, self.jobs[place]._return_value)
