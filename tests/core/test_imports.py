"""Imports without needless work."""

from __future__ import annotations

import gc
import importlib.metadata
import sys

import pytest

from loraloop.core import imports


def test_the_collector_rests_within_and_works_afterwards():
    """Within the context no garbage is collected and Mako's colours are not there; an error leaves all as it was."""
    listed, colours = importlib.metadata.packages_distributions, sys.modules.pop(imports.HIGHLIGHTING, None)

    def fail() -> None:
        with imports.quick(), imports.quick():
            assert not gc.isenabled()
            assert importlib.metadata.packages_distributions() is importlib.metadata.packages_distributions()
            importlib.import_module(imports.HIGHLIGHTING)

    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()
    assert importlib.metadata.packages_distributions is listed
    assert imports.HIGHLIGHTING not in sys.modules
    if colours is not None:
        sys.modules[imports.HIGHLIGHTING] = colours
