"""Imports of large libraries without needless work."""

from __future__ import annotations

import functools
import gc
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_compiling = threading.Lock()


@contextmanager
def quick() -> Iterator[None]:
    """Within the context imports take less time; what is imported works as ever.

    The cyclic garbage collector rests: modules are no garbage, and it would look through hundreds of thousands of their
    objects again and again. What a library asks torch to compile is compiled when it is first called: bitsandbytes
    asks so for a few functions when it is imported, for which torch would load its compiler.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        with _compiled_when_called():
            yield
    finally:
        if collects:
            gc.enable()


@contextmanager
def _compiled_when_called() -> Iterator[None]:
    torch = sys.modules.get("torch")
    if torch is None or not _compiling.acquire(blocking=False):  # another thread, or this one, does so already
        yield
        return
    compiles = torch.compile
    torch.compile = functools.partial(_when_called, compiles)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.compile = compiles  # type: ignore[attr-defined]
        _compiling.release()


def _when_called(compiles: Callable[..., Any], function: Any = None, **options: Any) -> Any:
    """``torch.compile`` as a decorator of functions, put off to the first call; modules are compiled at once."""
    if function is None:
        return functools.partial(_when_called, compiles, **options)
    if not isinstance(function, types.FunctionType | types.BuiltinFunctionType):
        return compiles(function, **options)
    compiled = functools.cache(lambda: compiles(function, **options))

    @functools.wraps(function)
    def call(*given: Any, **named: Any) -> Any:
        return compiled()(*given, **named)

    return call


@functools.cache
def freeze() -> None:
    """Have the garbage collector leave alone what there is now; called when all libraries are there, and works once.

    Trainers collect garbage again and again, and would look through every object of every library.
    """
    gc.freeze()
