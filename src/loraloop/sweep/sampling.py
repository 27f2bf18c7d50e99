"""Samplers and pruners from their configuration, and the seed of each proposal."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from loraloop.core.suggest import nearest
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


def build(node: Any, path: str, allowed: tuple[str, ...] = ()) -> Any:
    """Build what ``_target_`` names, and what is nested in its arguments.

    Raises:
        ConfigError: A target outside the allowed prefixes, or arguments that it does not take.
        MissingDependencyError: A package that it needs is not installed.
    """
    if isinstance(node, list):
        return [build(item, f"{path}[{index}]", allowed) for index, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    values = {key: build(value, f"{path}.{key}", allowed) for key, value in node.items() if key[0] != "_"}
    if "_target_" not in node:
        return values
    name = str(node["_target_"])
    target = locate(name, f"{path}._target_", allowed)
    _require(name, path)
    _known(target, values, path)
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        try:
            return target(**values)
        except ImportError as error:
            raise _missing(name, path, error.name or str(error)) from error
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: {error}") from error


def locate(target: str, key: str, allowed: tuple[str, ...]) -> Callable[..., Any]:
    """What a dotted path names.

    Raises:
        ConfigError: It is outside the allowed prefixes or does not exist.
    """
    prefixes = (*ALLOWED, *allowed)
    if not target.startswith(prefixes):
        raise ConfigError(
            f"{key}={target} is outside {', '.join(prefixes)}: "
            f"add your own prefix with allow_targets=[{target.split('.')[0]}.]"
        )
    module, _, name = target.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{key}={target} cannot be imported: {error}") from error
    return found


def _require(name: str, path: str) -> None:
    package = NEEDS.get(name)
    if package is not None and importlib.util.find_spec(package) is None:
        raise _missing(name, path, package)


def _missing(name: str, path: str, package: str) -> MissingDependencyError:
    return MissingDependencyError(f"{path}: {name} needs {package}, which is not installed: pip install {package}")


def _known(target: Callable[..., Any], values: Mapping[str, Any], path: str) -> None:
    parameters = inspect.signature(target).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for key in values:
        if key not in parameters:
            known = ", ".join(parameters)
            raise ConfigError(f"{path}.{key} is not a key of {path}{nearest(key, parameters)}; it has {known}")
