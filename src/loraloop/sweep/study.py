"""The sweep's configuration, and the study that it opens or goes on with."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from loraloop.errors import ConfigError, SweepError
from loraloop.part import part
from loraloop.sweep import sampling, storage, terms
from loraloop.sweep.session import Session
from loraloop.sweep.space import Space

if TYPE_CHECKING:
    import optuna

Direction = Literal["minimize", "maximize"]
NO_PRUNER = "optuna.pruners.NopPruner"


@part
class Sweep:
    """An Optuna study over what the command line sweeps, with the keys of hydra-optuna-sweeper and a few more.

    Attributes:
        sampler: Who proposes: ``_target_`` under ``optuna.samplers.`` and its arguments.
        pruner: Who ends trials early: ``_target_`` under ``optuna.pruners.`` and its arguments.
        direction: Which way the job's value is better; a list for as many values.
        storage: The study database's URL; null means ``optuna.db`` in ``folder``.
        folder: Where that file lies.
        study_name: A name that a later sweep goes on with; null begins a new study.
        n_trials: Trials of the study, those of earlier sweeps included; a trial tried again counts once.
        n_jobs: Trials handed to the launcher at once.
        max_failure_rate: Share of ``n_trials`` that may fail for good before the sweep stops.
        max_retries: How often a trial is tried again after an error that is not loraloop's own, or a lost worker.
        params: Search space by key, in the grammar of the command line, which wins over it.
        custom_search_space: Dotted path of a function ``(config, trial)`` that suggests more parameters.
        allow_targets: More prefixes that ``_target_`` and ``custom_search_space`` may have.
    """

    sampler: dict[str, Any]
    pruner: dict[str, Any]
    folder: str
    direction: Direction | Annotated[list[Direction], Field(min_length=1)] = "minimize"
    storage: str | None = None
    study_name: Annotated[str, Field(min_length=1)] | None = None
    n_trials: Annotated[int, Field(ge=1)] = 20
    n_jobs: Annotated[int, Field(ge=1)] = 1
    max_failure_rate: Annotated[float, Field(ge=0, le=1)] = 0.25
    max_retries: Annotated[int, Field(ge=0)] = 1
    params: dict[str, Any] | None = None
    custom_search_space: str | None = None
    allow_targets: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _combinations(self) -> Sweep:
        for name, spec in (("sampler", self.sampler), ("pruner", self.pruner)):
            if "_target_" not in spec:
                raise ValueError(f"{name} has no _target_: choose one with hydra/sweeper/{name}=NAME")
        seed = self.sampler.get("seed")
        if seed is not None and not (isinstance(seed, int) and seed >= 0):
            raise ValueError(f"sampler.seed is {seed!r}: it is an integer from 0 on, or null for chance")
        if len(self.directions) > 1 and self.pruner["_target_"] != NO_PRUNER:
            raise ValueError(
                f"a pruner compares one value, and direction has {len(self.directions)}: hydra/sweeper/pruner=none"
            )
        return self

    @property
    def directions(self) -> list[Direction]:
        """One direction for each value of a job."""
        return [self.direction] if isinstance(self.direction, str) else list(self.direction)

    @contextmanager
    def open(self, name: str, space: Space, configuration: terms.Terms) -> Iterator[Session]:
        """Claim the study, hold it against what it was begun with, and take up what was left of it.

        Args:
            name: The study's, where ``study_name`` is null.
            space: What is searched.
            configuration: What all trials share, by dotted key.

        Raises:
            ConfigError: A sampler that cannot be built, a database that cannot be used, a study that another sweep is
                at work on or that was begun otherwise.
            SweepError: The database was lost while the sweep was at work.
        """
        self._try_out(space)
        url = storage.address(self.storage, self.folder)
        backend = storage.connect(url)
        name = self.study_name or name
        with storage.claim(url, name):
            with storage.explained(url):
                study = self._study(backend, name)
                self._hold(study, space, configuration)
                session = Session(self, study, url, space, self._seed())
                session.recover()
            with storage.explained(url, SweepError):
                try:
                    yield session
                finally:
                    session.recover()

    def _seed(self) -> int:
        seed = self.sampler.get("seed")
        return secrets.randbits(32) if seed is None else int(seed)

    def _try_out(self, space: Space) -> None:
        if self.sampler["_target_"] != sampling.GRID:
            sampling.sampler(self.sampler, 0, 0, self.allow_targets)
        elif not space:
            raise ConfigError("hydra/sweeper/sampler=grid has nothing to list: add KEY=choice(A,B,...)")
        sampling.pruner(self.pruner, self.allow_targets)
        if not space and not self.custom_search_space:
            raise ConfigError("nothing is swept: add KEY=choice(A,B,...) or KEY=interval(FROM,TO), or name sweeps=NAME")

    def _study(self, backend: optuna.storages.BaseStorage, name: str) -> optuna.Study:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=name,
            storage=backend,
            directions=self.directions,
            pruner=sampling.pruner(self.pruner, self.allow_targets),
            load_if_exists=True,
        )
        return study

    def _hold(self, study: optuna.Study, space: Space, configuration: terms.Terms) -> None:
        begun = [direction.name.lower() for direction in study.directions]
        if begun != self.directions:
            raise ConfigError(
                f"hydra.sweeper.direction={','.join(self.directions)}: the study {study.study_name} was begun with "
                f"{','.join(begun)}; give the new sweep a name of its own, hydra.sweeper.study_name=NAME"
            )
        searched: dict[str, Any] = {key: str(dimension) for key, dimension in sorted(space.items())}
        if self.custom_search_space:
            searched["custom_search_space"] = self.custom_search_space
        terms.hold(study, {**searched, **{key: value for key, value in configuration.items() if key not in searched}})
