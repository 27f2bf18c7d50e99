"""Garbage collection and the objects of large libraries."""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quick() -> Iterator[None]:
    """Within the context the cyclic garbage collector rests, which takes a good part of the time of imports.

    Modules are no garbage, and it would look through hundreds of thousands of their objects again and again.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@functools.cache
def freeze() -> None:
    """Have the garbage collector leave alone what there is now; called when all libraries are there, and works once.

    Trainers collect garbage again and again, and would look through every object of every library.
    """
    gc.freeze()
