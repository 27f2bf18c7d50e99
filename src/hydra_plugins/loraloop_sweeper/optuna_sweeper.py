"""The sweeper that Hydra finds: overrides in, trials out to whatever launcher, results back to the study."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hydra.errors import HydraException
from hydra.plugins.sweeper import Sweeper
from omegaconf import OmegaConf, read_write

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from hydra.core.utils import JobReturn
    from hydra.plugins.launcher import Launcher
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from hydra_plugins.loraloop_sweeper._overrides import ParsedOverrides
    from loraloop.protocols import Run
    from loraloop.records import Call
    from loraloop.sweep.runner import Finished, Proposal, StudyRunner
    from loraloop.sweep.study import Sweep


SHOWN = 10  # trials in the table at the end


class OptunaSweeper(Sweeper):
    """``hydra/sweeper=optuna``."""

    config: DictConfig
    hydra_context: HydraContext
    launcher: Launcher

    def __init__(self, **_: Any) -> None:
        """The settings are read from the composed configuration, where errors can name their keys."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over and make the launcher."""
        from hydra.core.plugins import Plugins

        self.hydra_context, self.config = hydra_context, config
        # A pattern with a time in it would name another folder for every launch.
        with read_write(config.hydra.sweep):
            config.hydra.sweep.dir = str(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Try out the search space, then ask the study for trials until it has enough.

        Raises:
            ConfigError: Something is wrong with the settings or the search space; no trial began.
            SweepError: Too many trials failed.
        """
        from hydra_plugins.loraloop_sweeper import _dry_run, _origins, _overrides
        from loraloop.sweep import report
        from loraloop.sweep.opening import open_study
        from loraloop.workflows.multirun import sweep_run

        params = OmegaConf.to_container(self.config.hydra.sweeper.params or OmegaConf.create({}), resolve=True)
        lines = [f"{key}={_text(value)}" for key, value in cast("dict[str, Any]", params).items()]
        asked = _overrides.read([*lines, *arguments], self._loader)
        config = _dry_run.dry_run(self._loader, self.config, asked)
        settings = _dry_run.settings(self._loader, self.config, config)
        self._require_reachable(settings)
        configure = self._custom(settings, config, asked)
        name = f"{config.hydra.job.name}-{time.strftime('%Y-%m-%d_%H-%M-%S')}"
        fingerprint = _dry_run.terms(config, asked)
        with _quiet(self.config), open_study(settings, name, asked.space, fingerprint) as session:
            print(report.opening(session))
            places = int(getattr(self.launcher, "trials_at_once", 1))
            if plan := report.plan(settings, places, refilled=hasattr(self.launcher, "study")):
                print(plan)
            report.varied(_origins.rows(self.config, cast("dict[str, Any]", params), arguments, asked))
            summary = self._summary(config, session)
            with sweep_run.tracked(summary, session) as run:
                while size := session.batch_size(self._at_once(settings)):
                    report.bar(session)
                    self._batch(session, session.ask(size, configure), configure, asked, run)
            report.bar(session)
            print(f"results  {report.write(self._folder, session)}")
            if summary:
                summary()

    @property
    def _loader(self) -> ConfigLoader:
        return self.hydra_context.config_loader

    @property
    def _folder(self) -> Path:
        return Path(str(self.config.hydra.sweep.dir))

    def _summary(self, config: DictConfig, session: StudyRunner) -> Call | None:
        """The stage that sums the sweep up, checked before the first trial; another application has none."""
        from hydra_plugins.loraloop_sweeper import _dry_run
        from loraloop.cli import prepare

        if not _dry_run.own(config):
            return None
        plain = _dry_run.task(config)
        asked = {"stage": "sweep_report", "study": session.study.study_name, "storage": session.url, "top": SHOWN}
        return prepare.prepare({**plain, **asked}, self._folder, {}, ())

    def _require_reachable(self, settings: Sweep) -> None:
        from loraloop.core.passwords import mask
        from loraloop.errors import ConfigError
        from loraloop.sweep.storage import address

        url = address(settings.storage, settings.folder)
        if getattr(self.launcher, "remote", False) and url.startswith("sqlite"):
            raise ConfigError(
                f"hydra.sweeper.storage={mask(url)} is a file of this machine, and the launcher's jobs run on others: "
                "give the study a database that they reach, hydra.sweeper.storage=postgresql://USER@HOST/DATABASE "
                "(pip install 'loraloop[postgres]')"
            )

    def _at_once(self, settings: Sweep) -> int:
        return max(settings.n_jobs, int(getattr(self.launcher, "trials_at_once", 1)))

    def _batch(
        self,
        session: StudyRunner,
        proposals: list[Proposal],
        configure: Callable[[Any], None] | None,
        asked: ParsedOverrides,
        run: Run,
    ) -> None:
        batch = _Batch(session, proposals, lambda proposal: self._overrides(session, proposal, asked, run.id))
        batch.configure, batch.run = configure, run
        if hasattr(self.launcher, "study"):  # only a launcher that refills places has it
            self.launcher.study = batch
        returned = self._launch([batch.overrides(each) for each in proposals], proposals)
        for place, value in enumerate(returned):
            batch.ended(place, value)
        batch.check_budget()

    def _overrides(
        self, session: StudyRunner, proposal: Proposal, asked: ParsedOverrides, parent: str | None
    ) -> list[str]:
        from hydra_plugins.loraloop_sweeper._overrides import written
        from loraloop.sweep.trial import VARIABLE

        chosen = [
            f"{key}={asked.space[key].text(value) if key in asked.space else written(value)}"
            for key, value in proposal.params.items()
        ]
        identity = session.identity(proposal, parent).encode()
        return [*asked.fixed, *chosen, f"+hydra.job.env_set.{VARIABLE}={identity}"]

    def _launch(self, jobs: Sequence[Sequence[str]], proposals: list[Proposal]) -> Iterator[object]:
        """What each job returned or raised, those of ``proposals`` that were added meanwhile too.

        Jobs that the launcher lost have its own exception.
        """
        from loraloop.errors import LoraloopError

        lost: Exception = RuntimeError("the launcher returned nothing for it")
        returns: Sequence[JobReturn] = ()
        try:
            returns = self.launcher.launch(jobs, initial_job_idx=proposals[0].number)
        except (LoraloopError, HydraException):
            raise
        except Exception as error:
            lost = error
        yield from (_returned(job, lost) for job in returns)
        yield from [lost] * (len(proposals) - len(returns))

    def _custom(self, settings: Sweep, config: DictConfig, asked: ParsedOverrides) -> Callable[[Any], None] | None:
        from loraloop.core.build import locate
        from loraloop.errors import ConfigError
        from loraloop.sweep import sampling

        if settings.custom_search_space is None:
            return None
        key = "hydra.sweeper.custom_search_space"
        suggest = locate(settings.custom_search_space, key, (*sampling.ALLOWED, *settings.allow_targets))

        def configure(trial: Any) -> None:
            # As in hydra-optuna-sweeper, the function finds the fixed parameters in the trial's user attributes.
            for name, text in asked.settings.items():
                trial.set_user_attr(name, text)
            suggest(config, trial)
            if both := sorted(trial.params.keys() & asked.settings.keys()):
                raise ConfigError(
                    f"{key} suggests {', '.join(both)}, which the command line fixes: leave out one of them"
                )

        return configure


class _Batch:
    """Trials that a launcher carries out, with those that it asks for meanwhile.

    Args:
        session: Their study.
        proposals: Those that begin; the others are added at the end.
        overrides: Of a proposal's job.
    """

    configure: Callable[[Any], None] | None = None
    run: Run

    def __init__(
        self, session: StudyRunner, proposals: list[Proposal], overrides: Callable[[Proposal], list[str]]
    ) -> None:
        self.session, self.proposals, self.overrides = session, proposals, overrides
        self._places = len(proposals)
        self._finished: dict[int, Finished] = {}

    def ended(self, place: int, returned: object) -> None:
        """Tell the study and the person what a trial returned or raised; the first word on a trial counts."""
        from loraloop.sweep import report
        from loraloop.workflows.multirun import sweep_run

        if place not in self._finished:
            self._finished[place] = self.session.tell(self.proposals[place], returned)
            print(report.line(self._finished[place], self.session), flush=True)
            sweep_run.progress(self.run, self.session)

    def more(self, free: int) -> list[list[str]]:
        """Overrides of the study's next trials; none once too many have failed."""
        from loraloop.errors import SweepError

        try:
            self.check_budget()
        except SweepError:  # it ends the sweep when those that train have ended
            return []
        size = self.session.refill_size(free)
        added = self.session.ask(size, self.configure, together=self._places) if size else []
        self.proposals += added
        return [self.overrides(proposal) for proposal in added]

    def check_budget(self) -> None:
        """Stop where too many trials failed.

        Raises:
            SweepError: With the failure of the last.
        """
        for finished in self._finished.values():
            self.session.check_budget(finished)


@contextmanager
def _quiet(config: DictConfig) -> Iterator[None]:
    """Keep launchers from a line of their own for each job, which repeats ours with the trial's identity in it."""
    loggers = [logging.getLogger(name) for name in ("hydra", "hydra_plugins")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.NOTSET if config.hydra.verbose else logging.WARNING)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def _returned(job: JobReturn, lost: Exception) -> object:
    from hydra.core.utils import JobStatus

    # ``return_value`` would print a line for every exception, and a pruned trial is none.
    return lost if job.status == JobStatus.UNKNOWN else job._return_value


def _text(value: Any) -> str:
    from hydra_plugins.loraloop_sweeper._overrides import written

    return value if isinstance(value, str) else written(value)
