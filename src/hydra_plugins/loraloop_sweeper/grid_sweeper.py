"""Hydra's basic sweeper, which lists every combination, with a comparison of the runs at the end."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from omegaconf import read_write

if TYPE_CHECKING:
    from hydra.types import HydraContext, TaskFunction
    from omegaconf import DictConfig

    from hydra_plugins.loraloop_sweeper._overrides import ParsedOverrides

log = logging.getLogger(__name__)


class GridSweeper(BasicSweeper):
    """loraloop's ``hydra/sweeper=basic``: the runs move no alias; the best one is registered after the last."""

    config: DictConfig
    hydra_context: HydraContext
    overrides: Sequence[Sequence[Sequence[str]]]
    _arguments: list[str]
    _told: bool

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what Hydra hands over; a pattern with a time in it would name another folder later."""
        with read_write(config.hydra.sweep):
            config.hydra.sweep.dir = str(config.hydra.sweep.dir)
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run every combination, then compare those that ended, also where others failed."""
        from loraloop.errors import LoraloopError

        asked = self._asked(arguments)
        self._arguments, self._told = arguments, False
        try:
            returned = super().sweep(arguments)
        except Exception:
            try:
                self._compare()
            except LoraloopError as error:
                log.warning("The runs that ended are not compared: %s", error)
            raise
        except BaseException:
            self._say_how(asked.fixed)
            raise
        self._compare()
        return returned

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """Compose every combination, then say what is varied: a mistake is told alone."""
        from hydra_plugins.loraloop_sweeper import _origins
        from loraloop.sweep import report

        super().validate_batch_is_legal(batch)
        if not self._told:
            asked = self._asked(self._arguments)
            report.varied(_origins.rows(self.config, self.params, self._arguments, asked))
            self._told = True

    def _asked(self, arguments: list[str]) -> ParsedOverrides:
        from hydra_plugins.loraloop_sweeper import _overrides

        lines = [f"{key}={value}" for key, value in self.params.items()]
        return _overrides.read([*lines, *arguments], self.hydra_context.config_loader)

    def _compare(self) -> None:
        from hydra_plugins.loraloop_sweeper import _dry_run
        from loraloop.cli import prepare

        if not self._ended():
            return
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(self.overrides[0][0]))
        asked = {"stage": "multirun_report", "multirun": str(self._folder)}
        prepare.prepare({**_dry_run.task(config), **asked}, self._folder, {}, ())()

    def _say_how(self, fixed: list[str]) -> None:
        from loraloop.core.overrides import assign, command

        if ended := self._ended():
            kept = [each for each in fixed if not each.startswith(("stage=", "sweeps="))]
            report = command(["stage=multirun_report", assign("multirun", str(self._folder)), *kept])
            line = f"cd {shlex.quote(str(Path.cwd()))} && {report}"
            runs, what = ("run has", "and register it") if ended == 1 else ("runs have", "them and register the best")
            print(f"{ended} {runs} ended; to compare {what}: {line}")

    def _ended(self) -> int:
        from loraloop.workflows.multirun import results

        return len(results.read(self._folder))

    @property
    def _folder(self) -> Path:
        return Path(str(self.config.hydra.sweep.dir)).absolute()
