"""The scripts of the folder ``scripts``, as tests use them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[1] / "scripts"


@contextmanager
def script(name: str) -> Iterator[ModuleType]:
    """A script as a module; it finds the others while it is read, and none of them stays among the modules."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for other in {path.stem for path in FOLDER.glob("*.py")} - before:
            sys.modules.pop(other, None)
        yield module
