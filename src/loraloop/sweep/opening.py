"""The study that a sweep opens or goes on with."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from loraloop.errors import ConfigError, SweepError
from loraloop.sweep import clock, fingerprint, sampling, storage
from loraloop.sweep.runner import TOTAL, StudyRunner
from loraloop.sweep.space import Space
from loraloop.sweep.study import Sweep

if TYPE_CHECKING:
    import optuna

ORDER = "seed"


@contextmanager
def open_study(sweep: Sweep, name: str, space: Space, configuration: fingerprint.Fingerprint) -> Iterator[StudyRunner]:
    """Claim the study, check that it was begun with the same settings, and close what an earlier sweep left running.

    Args:
        sweep: The configuration.
        name: The study's, where ``study_name`` is null.
        space: What is searched.
        configuration: What all trials share, by dotted key.

    Raises:
        ConfigError: A sampler that cannot be built, a database that cannot be used, a study that another sweep is
            at work on or that was begun otherwise.
        SweepError: The database was lost while the sweep was at work.
    """
    _try_out(sweep, space)
    url = storage.address(sweep.storage, sweep.folder)
    backend = storage.connect(url)
    name = sweep.study_name or name
    with storage.claim(url, name):
        with storage.explained(url):
            study = _study(sweep, backend, name)
            _hold(sweep, study, space, configuration)
            seed = _seed(sweep)
            session = StudyRunner(sweep, study, url, space, seed, _order(study, seed))
            session.recover(died=True)
            study.set_user_attr(TOTAL, session.total)
            clock.keep(study)
        with storage.explained(url, SweepError):
            try:
                yield session
            finally:
                session.recover(died=False)


def _seed(sweep: Sweep) -> int:
    seed = sweep.sampler.get("seed")
    return secrets.randbits(32) if seed is None else int(seed)


def _order(study: optuna.Study, seed: int) -> int:
    """The seed that the study was begun with: with another one, a grid would list its points in another order."""
    if ORDER not in study.user_attrs:
        study.set_user_attr(ORDER, seed)
    return int(study.user_attrs[ORDER])


def _try_out(sweep: Sweep, space: Space) -> None:
    if sweep.sampler["_target_"] != sampling.GRID:
        sampling.sampler(sweep.sampler, 0, 0, sweep.allow_targets)
    elif not space:
        raise ConfigError("hydra/sweeper/sampler=grid has nothing to list: add KEY=choice(A,B,...)")
    sampling.pruner(sweep.pruner, sweep.allow_targets)
    if not space and not sweep.custom_search_space:
        raise ConfigError("nothing is swept: add KEY=choice(A,B,...) or KEY=interval(FROM,TO), or name sweeps=NAME")


def _study(sweep: Sweep, backend: optuna.storages.BaseStorage, name: str) -> optuna.Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name=name,
        storage=backend,
        directions=sweep.directions,
        pruner=sampling.pruner(sweep.pruner, sweep.allow_targets),
        load_if_exists=True,
    )
    return study


def _hold(sweep: Sweep, study: optuna.Study, space: Space, configuration: fingerprint.Fingerprint) -> None:
    begun = [direction.name.lower() for direction in study.directions]
    if begun != sweep.directions:
        raise ConfigError(
            f"hydra.sweeper.direction={','.join(sweep.directions)}: the study {study.study_name} was begun with "
            f"{','.join(begun)}; give the new sweep a name of its own, hydra.sweeper.study_name=NAME"
        )
    searched: dict[str, Any] = {key: str(dimension) for key, dimension in sorted(space.items())}
    if sweep.custom_search_space:
        searched["custom_search_space"] = sweep.custom_search_space
    fingerprint.hold(study, {**searched, **{key: value for key, value in configuration.items() if key not in searched}})
