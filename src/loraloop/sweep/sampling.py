"""Samplers and pruners from their configuration, and the seed of each proposal."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from loraloop.core.build import build as core_build
from loraloop.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

ALLOWED = ("optuna.samplers.", "optuna.pruners.", "loraloop.")
GRID = "optuna.samplers.GridSampler"
QMC = "optuna.samplers.QMCSampler"
NEEDS = {"optuna.samplers.CmaEsSampler": "cmaes", "optuna.samplers.GPSampler": "torch", QMC: "scipy"}
"""Packages that Optuna imports only when the sampler proposes, in the middle of a sweep."""

Spec = Mapping[str, Any]


def sampler(spec: Spec, seed: int, ordinal: int, allowed: tuple[str, ...] = ()) -> BaseSampler:
    """A fresh sampler for one proposal.

    Its randomness depends on the seed and the proposal's place alone, so a sweep that was stopped goes on with the
    proposals that it would have made.

    Args:
        spec: ``_target_`` and its arguments.
        seed: Of the whole sweep.
        ordinal: How many proposals were made before.
        allowed: More prefixes that a ``_target_`` may have.
    """
    from numpy.random import SeedSequence

    own = int(SeedSequence([seed, ordinal]).generate_state(1)[0])
    given = dict(spec)
    if given["_target_"] == QMC:
        # The sequence is one for all trials, and the study counts how far it is; only its stand-in is drawn anew.
        given["seed"] = seed
        given["independent_sampler"] = given.get("independent_sampler") or {
            "_target_": "optuna.samplers.RandomSampler",
            "seed": own,
        }
    elif "seed" in given:
        given["seed"] = own
    built: BaseSampler = build(given, "hydra.sweeper.sampler", allowed)
    return built


def pruner(spec: Spec | None, allowed: tuple[str, ...] = ()) -> BasePruner:
    """The pruner of a study or a trial; none prunes nothing."""
    built: BasePruner = build(spec or {"_target_": "optuna.pruners.NopPruner"}, "hydra.sweeper.pruner", allowed)
    return built


def build(spec: Spec, path: str, allowed: tuple[str, ...] = ()) -> Any:
    """Build what ``_target_`` names, and what is nested in its arguments.

    Raises:
        ConfigError: Targets outside the allowed prefixes, or arguments that they do not take; all that there are.
        MissingDependencyError: A package that one of them needs is not installed.
    """
    from optuna.exceptions import ExperimentalWarning

    _require_packages(spec, path)
    problems: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            built = core_build(_arguments(spec), path, (*ALLOWED, *allowed), problems)
        except ImportError as error:
            raise _missing(str(spec["_target_"]), path, error.name or str(error)) from error
    if problems:
        raise ConfigError(*problems)
    return built


def _arguments(node: Any) -> Any:
    """``node`` without the keys that steer Hydra, such as ``_convert_``."""
    if isinstance(node, list):
        return [_arguments(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    return {key: _arguments(value) for key, value in node.items() if key == "_target_" or key[0] != "_"}


def _require_packages(node: Any, path: str) -> None:
    if isinstance(node, Mapping):
        name = str(node.get("_target_", ""))
        package = NEEDS.get(name)
        if package is not None and importlib.util.find_spec(package) is None:
            raise _missing(name, path, package)
        for key, value in node.items():
            _require_packages(value, f"{path}.{key}")


def _missing(name: str, path: str, package: str) -> MissingDependencyError:
    return MissingDependencyError(f"{path}: {name} needs {package}, which is not installed: pip install {package}")
