"""Importing large libraries without what they do on the way that nothing here needs."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager

HIGHLIGHTING = "mako.ext.pygmentplugin"
"""Colours Mako's error pages; MLflow's database library imports it, and with it the lexers of half of Pygments."""


@contextmanager
def quick() -> Iterator[None]:
    """Within the context imports take about two thirds of their time; what is imported works as ever.

    The cyclic garbage collector rests: modules are no garbage, and it would look through hundreds of thousands of their
    objects again and again. Mako gets no colours for its error pages, as where Pygments is not installed, and the
    installed packages are listed once for all libraries that ask for them.
    """
    collects, listed = gc.isenabled(), importlib.metadata.packages_distributions
    gc.disable()
    importlib.metadata.packages_distributions = functools.cache(listed)
    absent = HIGHLIGHTING not in sys.modules
    if absent:
        sys.modules[HIGHLIGHTING] = None  # type: ignore[assignment]  # Python's sign of a module that is not there
    try:
        yield
    finally:
        if absent:
            del sys.modules[HIGHLIGHTING]
        importlib.metadata.packages_distributions = listed
        if collects:
            gc.enable()


@functools.cache
def freeze() -> None:
    """Have the garbage collector leave alone what there is now; called when all libraries are there, and works once.

    Trainers collect garbage again and again, and would look through every object of every library.
    """
    gc.freeze()
