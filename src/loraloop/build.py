"""From a plain configuration to a stage's parts: built together, checked together, then the stage runs."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loraloop import stages
from loraloop.errors import ConfigError, LoraloopError
from loraloop.records import Job
from loraloop.suggest import nearest

if TYPE_CHECKING:
    from loraloop.protocols import Trial

ALLOWED = ("loraloop.",)
ALONE: Mapping[str, frozenset[str]] = {"rollback": frozenset({"feedback"})}
"""The parts that a stage cannot do without, where it does what it can without the others: the rest is not checked."""


@dataclass(frozen=True, slots=True)
class Call:
    """A stage with its job and parts: built and checked, not begun."""

    stage: stages.Stage
    job: Job
    parts: Mapping[str, Any]

    def __call__(self) -> Any:
        """Run the stage."""
        return self.stage(self.job, **self.parts)


def prepare(
    config: Mapping[str, Any],
    output: Path,
    choices: Mapping[str, str],
    overrides: tuple[str, ...],
    sweep: Path | None = None,
    trial: Trial | None = None,
) -> Call:
    """Build the parts that the stage's parameters name.

    Args:
        config: The resolved configuration in plain containers.
        output: The job's own folder.
        choices: The chosen variant of every config group.
        overrides: The command line's overrides.
        sweep: Folder of the multirun that the job belongs to.
        trial: What the job is in a study.

    Raises:
        ConfigError: With every problem of every part; nothing was written.
    """
    problems: list[str] = []
    stage, parts = _parts(config, problems)
    needed = ALONE.get(str(config["stage"]), parts.keys())
    for name, built in parts.items():
        problems += _check(built, name) if name in needed else []
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
        sweep=sweep,
        trial=trial,
    )
    return Call(stage, job, parts)


def problems(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the values of the parts that the stage needs; nothing is looked at outside of them."""
    found: list[str] = []
    _parts(config, found)
    return found


def construct(target: Callable[..., Any], values: dict[str, Any], path: str) -> Any:
    """Build one part from values that need no building themselves.

    Raises:
        ConfigError: With every problem, each naming its key below ``path``.
    """
    found: list[str] = []
    built = _construct(target, values, path, found)
    if found:
        raise ConfigError(*found)
    return built


def _parts(config: Mapping[str, Any], problems: list[str]) -> tuple[stages.Stage, dict[str, Any]]:
    stage = stages.find(str(config["stage"]))
    names = [name for name in inspect.signature(stage).parameters if name != "job"]
    allowed = (*ALLOWED, *config.get("allow_targets", ()))
    parts = {}
    for name in names:
        found: list[str] = []
        parts[name] = _build(config.get(name), name, allowed, found)
        problems += [_as_given(problem, name, config) for problem in found]
    return stage, parts


def _as_given(problem: str, name: str, config: Mapping[str, Any]) -> str:
    """A group that stands in another one by ``${GROUP}`` is named by its own keys: those a person can change."""
    node = config.get(name)
    for key, value in node.items() if isinstance(node, Mapping) else ():
        if isinstance(value, Mapping) and value == config.get(key):
            problem = problem.replace(f"{name}.{key}.", f"{key}.")
    return problem


def _build(node: Any, path: str, allowed: tuple[str, ...], problems: list[str]) -> Any:
    if isinstance(node, list):
        return [_build(item, f"{path}[{index}]", allowed, problems) for index, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    count = len(problems)
    values = {
        key: _build(value, f"{path}.{key}", allowed, problems) for key, value in node.items() if key != "_target_"
    }
    if "_target_" not in node:
        return values
    target = _locate(str(node["_target_"]), path, allowed, problems)
    return _construct(target, values, path, problems) if target and len(problems) == count else None


def _locate(target: str, path: str, allowed: tuple[str, ...], problems: list[str]) -> Callable[..., Any] | None:
    if not target.startswith(allowed):
        problems.append(
            f"{path}._target_={target} is outside {', '.join(allowed)}: only these prefixes are built; "
            f"add your own with allow_targets=[{target.split('.')[0]}.]"
        )
        return None
    module, _, name = target.rpartition(".")
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        problems.append(f"{path}._target_={target} cannot be imported: {error}")
        return None
    return found


def _construct(target: Callable[..., Any], values: dict[str, Any], path: str, problems: list[str]) -> Any:
    from pydantic import ValidationError

    try:
        return target(**values)
    except ValidationError as error:
        problems += [_sentence(path, dict(detail), target) for detail in error.errors()]
    except ConfigError as error:
        problems += error.problems
    except (TypeError, ValueError) as error:
        problems.append(f"{path}: {error}")
    return None


def _sentence(path: str, detail: Mapping[str, Any], target: Callable[..., Any]) -> str:
    key = ".".join([path, *(str(step) for step in detail["loc"])])
    if detail["type"] == "unexpected_keyword_argument":
        *parents, name = map(str, detail["loc"])
        known = _keys(target, parents)
        return f"{key} is not a key of {'.'.join([path, *parents])}{nearest(name, known)}; it has {', '.join(known)}"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return f"{path}: {message}"
    return f"{key}={detail['input']!r}: {message[0].lower()}{message[1:]}"


def _keys(target: Any, parents: list[str]) -> list[str]:
    """The keys of a part, or of the group of values that ``parents`` lead to within it."""
    for name in parents:
        target = target.__pydantic_fields__[name].annotation
    return list(inspect.signature(target).parameters)


def _check(built: Any, path: str) -> list[str]:
    check = getattr(built, "check", None)
    if check is None:
        return []
    try:
        check()
    except LoraloopError as error:
        problems = error.problems if isinstance(error, ConfigError) else (str(error),)
        return [problem if problem.startswith(path) else f"{path}: {problem}" for problem in problems]
    return []
