"""Whether what was built has the methods that its place asks for, named before any of them is called."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from loraloop import protocols
from loraloop.core.suggest import nearest

PROTOCOLS: dict[str, type] = {
    name: each
    for name, each in vars(protocols).items()
    if inspect.isclass(each) and each.__module__ == protocols.__name__ and Protocol in each.__bases__
}


def unmet(target: Callable[..., Any], values: Mapping[str, Any], path: str = "") -> list[str]:
    """A sentence for each method that a value lacks, or that takes other arguments than it will be given.

    Args:
        target: A stage or a part; the parameters that are annotated with a protocol say what their values must have.
        values: What its parameters will be; a source without a rule of its own is given the protocol's.
        path: The dotted key of ``target``; empty for a stage.
    """
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # nothing that can be called, or a built-in without a signature
        return []
    return [
        problem
        for name, parameter in parameters.items()
        for word in re.findall(r"\w+", str(parameter.annotation))
        if word in PROTOCOLS
        for key, value in _each(f"{path}.{name}".lstrip("."), values.get(name))
        for problem in _lacks(key, value, PROTOCOLS[word])
    ]


def _each(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The parts in a value: itself, or those of a list or a mapping."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            yield from _each(f"{path}.{key}", one)
    elif isinstance(value, list | tuple):
        for index, one in enumerate(value):
            yield from _each(f"{path}[{index}]", one)
    elif value is not None and not isinstance(value, str | int | float):
        yield path, value


def _lacks(path: str, value: Any, protocol: type) -> Iterator[str]:
    kind = type(value)
    if protocol is protocols.Source and not hasattr(kind, "correct"):
        kind.correct = protocols.Source.correct
    for name, promised in vars(protocol).items():
        if name.startswith("_") or not (inspect.isfunction(promised) or isinstance(promised, property)):
            continue
        own = inspect.getattr_static(value, name, None)
        if isinstance(promised, property):
            if own is None and not hasattr(kind, name):
                yield f"{path}: {_named(kind)} has no {name}; a {protocol.__name__} has {_told(name, promised.fget)}"
            continue
        expected = f"a {protocol.__name__} has {_told(name, promised)}"
        if own is None:
            others = [each for each in vars(kind) if not each.startswith("_") and not hasattr(protocol, each)]
            yield f"{path}: {_named(kind)} has no method {name}{nearest(name, others)}; {expected}"
        elif not _takes(getattr(value, name), promised):
            written = inspect.signature(getattr(kind, name, getattr(value, name)))
            yield f"{path}: {_named(kind)}.{name}{_plain(written)} cannot be called as loraloop does; {expected}"


def _takes(method: Any, promised: Callable[..., Any]) -> bool:
    """Whether a bound method can be called with the arguments of ``promised``, those with a default by their names."""
    _, *given = inspect.signature(promised).parameters.values()
    named = [each.name for each in given if each.default is not each.empty or each.kind is each.KEYWORD_ONLY]
    try:
        inspect.signature(method).bind(*given[: len(given) - len(named)], **dict.fromkeys(named))
    except (TypeError, ValueError):
        return False
    return True


def _told(name: str, promised: Any) -> str:
    return f"`def {name}{_plain(inspect.signature(promised))}`"


def _plain(signature: inspect.Signature) -> str:
    return str(signature).replace("'", "")


def _named(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
