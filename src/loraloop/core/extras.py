"""Optional imports: a missing package becomes an error that says what to install."""

from __future__ import annotations

import importlib
from types import ModuleType

from loraloop.errors import MissingDependencyError


def require(module: str, extra: str) -> ModuleType:
    """Import ``module``, which the optional dependency group ``extra`` brings.

    Raises:
        MissingDependencyError: The module is not installed; the message holds the ``pip install`` line.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):
            raise
        raise MissingDependencyError(f"{module} is not installed: pip install 'loraloop[{extra}]'") from error
