"""Imports without needless work."""

from __future__ import annotations

import gc

import pytest

from loraloop.core import imports


def test_the_collector_rests_within_and_works_afterwards():
    """Within the context, also one in another, no garbage is collected; an error leaves that as it was."""

    def fail() -> None:
        with imports.quick():
            with imports.quick():
                pass
            assert not gc.isenabled()
            raise ImportError

    with pytest.raises(ImportError):
        fail()
    assert gc.isenabled()
