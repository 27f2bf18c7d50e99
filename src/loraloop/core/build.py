"""Building parts from configuration: what ``_target_`` names, inside allowed prefixes, with every problem found."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loraloop.core.contract import unmet
from loraloop.core.passwords import mask_all
from loraloop.core.suggest import nearest
from loraloop.errors import ConfigError

ALLOWED = ("loraloop.",)


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


def build(node: Any, path: str, allowed: tuple[str, ...], problems: list[str]) -> Any:
    """Build what ``_target_`` names in ``node``, and what is nested in it.

    Args:
        node: A value of the configuration, in plain containers.
        path: Its dotted key.
        allowed: Prefixes that a ``_target_`` may have.
        problems: Takes one sentence for every problem found; where there is any, the result is of no use.
    """
    if isinstance(node, list):
        return [build(item, f"{path}[{index}]", allowed, problems) for index, item in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    count = len(problems)
    values = {key: build(value, f"{path}.{key}", allowed, problems) for key, value in node.items() if key != "_target_"}
    if "_target_" not in node:
        return values
    try:
        target = locate(str(node["_target_"]), f"{path}._target_", allowed)
    except ConfigError as error:
        problems += error.problems
        return None
    if len(problems) == count:
        problems += unmet(target, values, path)
    return _construct(target, values, path, problems) if len(problems) == count else None


def locate(target: str, key: str, allowed: tuple[str, ...]) -> Callable[..., Any]:
    """What a dotted path names; nothing outside the allowed prefixes is so much as imported.

    Args:
        target: Such as ``loraloop.lora.Lora``.
        key: Where it was written, for the message.
        allowed: Prefixes that it may have.

    Raises:
        ConfigError: It is outside the allowed prefixes or cannot be imported.
    """
    if not target.startswith(allowed):
        add = f"add your own prefix with allow_targets=[{target.split('.')[0]}.]"
        raise ConfigError(
            f"{key}={target} is outside {', '.join(allowed)}: only these prefixes are built; "
            f"{add if '.' in target else 'write MODULE.CLASS and add MODULE. to allow_targets'}"
        )
    module, _, name = target.rpartition(".")
    try:
        home = importlib.import_module(module)
    except Exception as error:  # a person's module may fail in any way
        raise ConfigError(f"{key}={target} cannot be imported: {_why(module, error)}") from error
    if not hasattr(home, name):
        raise ConfigError(f"{key}={target} cannot be imported: {module} has no {name}{nearest(name, vars(home))}")
    found: Callable[..., Any] = getattr(home, name)
    return found


def _why(module: str, error: Exception) -> str:
    """Why a module cannot be imported, and where modules are looked for if it is not there."""
    absent = error.name if isinstance(error, ModuleNotFoundError) else None
    if absent and f"{module}.".startswith(f"{absent}.") and not module.startswith(ALLOWED):
        return (
            f"there is no module {absent}: keep it in the folder that --config-dir names, or name its own folder "
            "before the command: PYTHONPATH=FOLDER loraloop ..."
        )
    return str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"


def _construct(target: Callable[..., Any], values: dict[str, Any], path: str, problems: list[str]) -> Any:
    from pydantic import ValidationError

    try:
        return target(**values)
    except ValidationError as error:
        problems += [_sentence(path, detail, target) for detail in _one_a_value(error.errors(), values)]
    except ConfigError as error:
        problems += error.problems
    except TypeError as error:
        problems += _unknown(path, values, target) or [f"{path}: {error}"]
    except ValueError as error:
        problems.append(f"{path}: {error}")
    return None


def _one_a_value(details: Sequence[Mapping[str, Any]], values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """One problem for a value that fits none of several types, where pydantic has one for each type."""
    found: dict[Any, dict[str, Any]] = {}
    for detail in details:
        name = detail["loc"][0] if detail["loc"] else None
        whole = len(detail["loc"]) > 1 and detail["input"] is values.get(str(name))
        key = name if whole else detail["loc"]
        message = "Input should be a list, such as [a,b]" if detail["type"] == "tuple_type" else str(detail["msg"])
        if key in found:
            found[key]["msg"] += f", or {message.lower().removeprefix('input should be ')}"
        else:
            found[key] = {**detail, "msg": message, "loc": (name,) if whole else detail["loc"]}
    return list(found.values())


def _unknown(path: str, values: Mapping[str, Any], target: Callable[..., Any]) -> list[str]:
    """A sentence for each value that a function or a class which is no part does not take."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # nothing that can be called, or a built-in without a signature
        return []
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return []
    return [_no_key(path, key, list(parameters)) for key in values if key not in parameters]


def _no_key(path: str, name: str, known: list[str]) -> str:
    return f"{path}.{name} is not a key of {path}{nearest(name, known)}; it has {', '.join(known)}"


def _sentence(path: str, detail: Mapping[str, Any], target: Callable[..., Any]) -> str:
    key = ".".join([path, *(str(step) for step in detail["loc"])])
    if detail["type"] == "unexpected_keyword_argument":
        *parents, name = map(str, detail["loc"])
        return _no_key(".".join([path, *parents]), name, _keys(target, parents))
    if detail["type"] == "missing":  # pydantic's input is all that was given
        return f"{key} is not set: add {key}=... or a line {detail['loc'][-1]}: to its YAML file"
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return f"{path}: {message}"
    return f"{key}={mask_all(detail['input'])!r}: {message[0].lower()}{message[1:]}"


def _keys(target: Any, parents: list[str]) -> list[str]:
    """The keys of a part, or of the group of values that ``parents`` lead to within it."""
    for name in parents:
        target = target.__pydantic_fields__[name].annotation
    return list(inspect.signature(target).parameters)
