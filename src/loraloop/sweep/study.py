"""The sweep's configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from loraloop.core.part import part

Direction = Literal["minimize", "maximize"]
NO_PRUNER = "optuna.pruners.NopPruner"


@part
class Sweep:
    """An Optuna study over what the command line sweeps, with the keys of hydra-optuna-sweeper and a few more.

    Attributes:
        sampler: Who proposes: ``_target_`` under ``optuna.samplers.`` and its arguments.
        pruner: Who ends trials early: ``_target_`` under ``optuna.pruners.`` and its arguments.
        direction: Which way the job's value is better; a list for as many values, null for one that is minimised.
        storage: The study database's URL; null means ``optuna.db`` in ``folder``.
        folder: Where that file lies.
        study_name: A name that a later sweep goes on with; null begins a new study.
        n_trials: Trials of the study, those of earlier sweeps included; a trial tried again counts once.
        n_jobs: Trials handed to the launcher at once.
        max_failure_rate: Share of ``n_trials`` that may fail for good before the sweep stops.
        max_retries: How often a trial is tried again after an error that is not loraloop's own, a lost worker, or the
            death of the process that carried it out.
        params: Search space by key, in the grammar of the command line, which wins over it.
        custom_search_space: Dotted path of a function ``(config, trial)`` that suggests more parameters.
        allow_targets: More prefixes that ``_target_`` and ``custom_search_space`` may have.
    """

    sampler: dict[str, Any]
    pruner: dict[str, Any]
    folder: str
    direction: Direction | Annotated[list[Direction], Field(min_length=1)] | None = None
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
        return list(self.direction) if isinstance(self.direction, list) else [self.direction or "minimize"]
