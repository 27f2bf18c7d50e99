"""From a plain configuration to a stage's parts: built together, checked together, then the stage runs."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop import stages
from loraloop.core.build import ALLOWED, build
from loraloop.core.contract import unmet
from loraloop.core.patience import patiently
from loraloop.errors import ConfigError, LoraloopError, TrackingError
from loraloop.records import Call, Job

if TYPE_CHECKING:
    from loraloop.records import Cache, Trial


def prepare(
    config: Mapping[str, Any],
    output: Path,
    choices: Mapping[str, str],
    overrides: tuple[str, ...],
    cache: Cache | None = None,
    trial: Trial | None = None,
    *,
    multirun: bool = False,
) -> Call:
    """Build the parts that the stage's parameters name.

    Args:
        config: The resolved configuration in plain containers.
        output: The job's own folder.
        choices: The chosen variant of every config group.
        overrides: The command line's overrides.
        cache: What the job shares with the others of its multirun in this process.
        trial: What the job is in a study.
        multirun: Whether it is one of several jobs that are compared.

    Raises:
        ConfigError: With every problem of every part; nothing was written.
    """
    problems: list[str] = []
    stage, parts = _parts(config, problems)
    needed = getattr(stage, "CHECKED", parts.keys())
    for name, built in parts.items():
        problems += _check(built, name, waits=trial is not None) if name in needed else []
    if problems:
        raise ConfigError(*problems)
    used = {name: config.get(name) for name in parts}
    job = Job(
        stage=str(config["stage"]),
        seed=int(config["seed"]),
        config=used,
        output=output,
        choices={group: choice for group, choice in choices.items() if group in used or group == "experiment"},
        overrides=overrides,
        cache=cache,
        trial=trial,
        multirun=multirun,
    )
    return Call(stage, job, parts)


def problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of the parts that the stage needs; nothing is looked at outside of them."""
    found: list[str] = []
    _parts(config, found)
    return found


def _parts(config: Mapping[str, Any], problems: list[str]) -> tuple[stages.Stage, dict[str, Any]]:
    stage = stages.find(str(config["stage"]))
    names = [name for name in inspect.signature(stage).parameters if name != "job"]
    allowed = (*ALLOWED, *config.get("allow_targets", ()))
    parts = {}
    for name in names:
        found: list[str] = []
        parts[name] = build(config.get(name), name, allowed, found)
        problems += [_as_given(problem, name, config) for problem in found]
    problems += unmet(stage, parts)
    if not problems and (misfits := getattr(stage, "misfits", None)):
        problems += misfits(parts)
    return stage, parts


def _as_given(problem: str, name: str, config: Mapping[str, Any]) -> str:
    """A group that stands in another one by ``${GROUP}`` is named by its own keys: those a person can change."""
    node = config.get(name)
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(value, Mapping) and value == config.get(key):
            problem = problem.replace(f"{name}.{key}.", f"{key}.")
    return problem


def _check(built: Any, path: str, *, waits: bool) -> list[str]:
    """What is wrong with a part; a trial ``waits`` for a tracker that its sweep had reached."""
    check = getattr(built, "check", None)
    if check is None:
        return []
    try:
        patiently(check, TrackingError) if waits else check()
    except LoraloopError as error:
        problems = error.problems if isinstance(error, ConfigError) else (str(error),)
        return [problem if problem.startswith(path) else f"{path}: {problem}" for problem in problems]
    return []
