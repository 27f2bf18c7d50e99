"""A job's configuration composed for every corner of the search space, before any trial begins."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hydra_plugins.loraloop_sweeper import _sweepers
from hydra_plugins.loraloop_sweeper._overrides import ParsedOverrides
from hydra_plugins.loraloop_sweeper._sweepers import SCHEME
from loraloop.cli import prepare
from loraloop.core import suggest
from loraloop.core.build import construct
from loraloop.core.metrics import OBJECTIVES, direction
from loraloop.errors import ConfigError
from loraloop.sweep.space import Choice, Dimension
from loraloop.sweep.study import NO_PRUNER, Sweep

NODE = "hydra.sweeper"
APART = {"folder", "tracker", "registry", "gate", "allow_targets", "resume"}
"""Keys that a trial's value does not depend on."""


def dry_run(loader: ConfigLoader, master: DictConfig, asked: ParsedOverrides) -> DictConfig:
    """Compose a job for each probe of each dimension and build its parts.

    Returns:
        The configuration of a job at the first probe of every dimension.

    Raises:
        ConfigError: One problem for each key whose search space does not fit.
    """
    first = {key: f"{key}={dimension.probes()[0]}" for key, dimension in asked.space.items()}
    try:
        config = loader.load_sweep_config(master, [*asked.fixed, *first.values()])
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(*(_blame(loader, master, asked, first) or [suggest.first_line(error)])) from error
    problems = [problem for key in asked.space if (problem := _fault(loader, master, config, asked, key))]
    if problems:
        raise ConfigError(*dict.fromkeys(problems))
    return config


def settings(loader: ConfigLoader, master: DictConfig, config: DictConfig) -> Sweep:
    """The sweeper's settings, with ``pruner=NAME`` taken for the choice of that name."""
    node = cast("dict[str, Any]", OmegaConf.to_container(config.hydra.sweeper, resolve=True))
    for group in ("sampler", "pruner"):
        if isinstance(node[group], str):
            node[group] = _choice(loader, master, group, node[group])
    values = {key: value for key, value in node.items() if key not in ("_target_", "_recursive_")}
    if own(config):
        values["direction"] = _direction(config.get("objective"), values["direction"])
    typed = [line.lstrip("+").replace("/", ".") for line in master.hydra.overrides.hydra]
    several = isinstance(values["direction"], list) and len(values["direction"]) > 1
    if several and not any(line.startswith(f"{NODE}.pruner") for line in typed):
        values["pruner"] = {"_target_": NO_PRUNER}  # that of a sweep's file; one that was typed is refused
    return cast("Sweep", construct(Sweep, values, NODE))


def own(config: DictConfig) -> bool:
    """Whether a job's configuration is loraloop's, and not another application's."""
    sources = config.hydra.runtime.config_sources
    return _sweepers.own(source.path for source in sources if source.provider == "main")


def _direction(objective: Any, given: Any) -> Any:
    """The direction that an objective has; an unknown one is told when the trial's parts are built.

    Raises:
        ConfigError: ``hydra.sweeper.direction`` says otherwise, or there is no objective.
    """
    plain: Any = OmegaConf.to_container(objective) if OmegaConf.is_config(objective) else objective
    names: list[str] = plain if isinstance(plain, list) else [plain]
    if not names:
        raise ConfigError(f"objective=[] is empty; a run can return {', '.join(OBJECTIVES)}")
    if not set(names) <= set(OBJECTIVES):
        return given
    meant: list[str] = [direction(name) for name in names]
    if given is not None and meant != (given if isinstance(given, list) else [given]):
        said = ",".join(given) if isinstance(given, list) else given
        raise ConfigError(
            f"{NODE}.direction={said}, and objective={','.join(names)} is better {_better(names, meant)}: leave the "
            "direction out, and it follows from the objective"
        )
    return meant if isinstance(plain, list) else meant[0]


def _better(names: list[str], meant: list[str]) -> str:
    ways = {"maximize": "the higher it is", "minimize": "the lower it is"}
    if len(names) == 1:
        return ways[meant[0]]
    return ", ".join(f"{ways[way]} ({name})" for name, way in zip(names, meant, strict=True))


def terms(config: DictConfig, asked: ParsedOverrides) -> dict[str, Any]:
    """What all trials share, unresolved: a moved folder or a secret from the environment changes nothing here."""
    task = {key: value for key, value in config.items() if key not in {"hydra", *APART}}
    flat = dict(_leaves(cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.create(task), resolve=False))))
    searched = tuple(asked.space)
    choices = cast("dict[str, Any]", OmegaConf.to_container(config.hydra.runtime.choices))
    groups = {key for key in searched if key in choices}
    return {key: value for key, value in flat.items() if key not in searched and key.split(".")[0] not in groups}


def _fault(
    loader: ConfigLoader, master: DictConfig, config: DictConfig, asked: ParsedOverrides, key: str
) -> str | None:
    dimension = asked.space[key]
    for text in dimension.probes():
        try:
            job = _at(loader, master, config, asked, key, text)
        except (HydraException, OmegaConfBaseException) as error:
            return _sentence(master, f"{key}={text}", error)
        if found := prepare.problems(task(job)) if own(job) else []:
            blamed = next((problem for problem in found if _part(problem) == _part(key)), None)
            return f"{key}={dimension}: {blamed}{_advice(dimension, blamed)}" if blamed else found[0]
    return None


def _at(
    loader: ConfigLoader, master: DictConfig, config: DictConfig, asked: ParsedOverrides, key: str, text: str
) -> DictConfig:
    """The job's configuration with another value of one key; only another choice of a group is composed anew."""
    if key.lstrip("+") in config.hydra.runtime.choices:
        first = {other: dimension.probes()[0] for other, dimension in asked.space.items()} | {key: text}
        return loader.load_sweep_config(master, [*asked.fixed, *(f"{name}={value}" for name, value in first.items())])
    job = copy.deepcopy(config)
    value = OverridesParser.create().parse_override(f"{key}={text}").value()
    OmegaConf.update(job, key.lstrip("+"), value)
    return job


def _part(text: str) -> str:
    return re.split(r"[.:=]", text.lstrip("+"), maxsplit=1)[0]


def _advice(dimension: Dimension, problem: str) -> str:
    if isinstance(dimension, Choice) or dimension.integer or "valid integer" not in problem:
        return ""
    ends = f"int(interval({dimension.low:g},{dimension.high:g}))"
    return f"; for integers write {f'tag(log,{ends})' if dimension.log else ends}"


def task(config: DictConfig) -> dict[str, Any]:
    """The task's values as a job sees them, with the sweep's folder in place of the job's own."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import open_dict

    nodes = {str(name): node for name, node in config.items() if name != "hydra"}
    before = HydraConfig.instance().cfg
    with open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = config.hydra.sweep.dir
    try:
        HydraConfig.instance().set_config(config)
        return cast("dict[str, Any]", OmegaConf.to_container(OmegaConf.create(nodes), resolve=True))
    finally:
        HydraConfig.instance().cfg = before


def _blame(loader: ConfigLoader, master: DictConfig, asked: ParsedOverrides, first: dict[str, str]) -> list[str]:
    """A sentence for each key that does not compose without the others."""
    problems = []
    for override in first.values():
        try:
            loader.load_sweep_config(master, [*asked.fixed, override])
        except (HydraException, OmegaConfBaseException) as error:
            problems.append(_sentence(master, override, error))
    return problems


def _sentence(master: DictConfig, override: str, error: Exception) -> str:
    schemas = ("file", SCHEME)
    places = [source.path for source in master.hydra.runtime.config_sources if source.schema in schemas]
    keys = [key for key, _ in _leaves(cast("dict[str, Any]", OmegaConf.to_container(master)))]
    return suggest.sentence(override, error, [Path(place) for place in places], keys)


def _choice(loader: ConfigLoader, master: DictConfig, group: str, name: str) -> dict[str, Any]:
    lines = [line for line in master.hydra.overrides.hydra if not line.startswith(f"{NODE}.{group}=")]
    lines.append(f"hydra/sweeper/{group}={name}")
    try:
        config = loader.load_configuration(
            master.hydra.job.config_name, [*lines, *master.hydra.overrides.task], RunMode.MULTIRUN
        )
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(_sentence(master, lines[-1], error)) from error
    return cast("dict[str, Any]", OmegaConf.to_container(config.hydra.sweeper[group], resolve=True))


def _leaves(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every dotted key with its value, the groups on the way too."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value
