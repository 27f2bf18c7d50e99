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

_ABSENT = object()


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
        for key, value in _each(f"{path}.{name}".lstrip("."), values.get(name), str(parameter.annotation))
        for problem in _lacks(key, value, PROTOCOLS[word])
    ]


def _each(path: str, value: Any, annotation: str) -> Iterator[tuple[str, Any]]:
    """The parts in a value: itself, or those of a list or a mapping where the annotation speaks of one."""
    several = re.search(r"\b(dict|list|tuple|Mapping|Sequence)\[", annotation)
    if several and isinstance(value, Mapping):
        yield from ((f"{path}.{key}", one) for key, one in value.items())
    elif several and isinstance(value, list | tuple):
        yield from ((f"{path}[{index}]", one) for index, one in enumerate(value))
    elif value is not None:
        yield path, value


def _lacks(path: str, value: Any, protocol: type) -> Iterator[str]:
    kind = type(value)
    if isinstance(value, Mapping | list | str | int | float):
        yield f"{path} is no {protocol.__name__}: its YAML names the class, such as _target_: my_package.MyClass"
        return
    if protocol is protocols.Source and not hasattr(kind, "correct"):
        kind.correct = protocols.Source.correct
    for name, promised in vars(protocol).items():
        method = promised.fget if isinstance(promised, property) else promised
        if name.startswith("_") or not inspect.isfunction(method):
            continue
        if fault := _fault(value, name, None if isinstance(promised, property) else method):
            expected = f"a {protocol.__name__} has `def {name}{_plain(method)}`"
            yield f"{path}: {kind.__module__}.{kind.__qualname__}{fault}; {expected}"


def _fault(value: Any, name: str, promised: Callable[..., Any] | None) -> str:
    """What is wrong with an attribute, which may be anything unless a method is promised; empty if nothing is."""
    if inspect.getattr_static(value, name, _ABSENT) is _ABSENT:
        return f" has no {name}{nearest(name, [each for each in vars(type(value)) if not each.startswith('_')])}"
    if promised is None or _takes(getattr(value, name), promised):
        return ""
    own = getattr(type(value), name, getattr(value, name))
    return f".{name}{_plain(own) if callable(own) else ''} cannot be called as loraloop does"


def _takes(method: Any, promised: Callable[..., Any]) -> bool:
    """Whether a bound method can be called with the arguments of ``promised``, those with a default by their names."""
    _, *given = inspect.signature(promised).parameters.values()
    named = [each.name for each in given if each.default is not each.empty or each.kind is each.KEYWORD_ONLY]
    try:
        inspect.signature(method).bind(*given[: len(given) - len(named)], **dict.fromkeys(named))
    except (TypeError, ValueError):
        return False
    return True


def _plain(method: Callable[..., Any]) -> str:
    return str(inspect.signature(method)).replace("'", "")
