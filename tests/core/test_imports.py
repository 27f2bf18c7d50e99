"""Imports without needless work."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace

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


def test_what_is_compiled_within_is_compiled_when_it_is_called(monkeypatch):
    """A function that is decorated while a library is imported is compiled once, by its first call, and not before."""
    asked = []

    def compiles(function, **options):
        asked.append(options)
        return lambda value: ("compiled", function(value))

    torch = SimpleNamespace(compile=compiles)
    monkeypatch.setitem(sys.modules, "torch", torch)
    with imports.quick(), imports.quick():
        plain, given = torch.compile(abs), torch.compile(dynamic=False)(abs)
    assert torch.compile is compiles
    assert asked == []
    assert [plain(-1), given(-2), given(-3)] == [("compiled", 1), ("compiled", 2), ("compiled", 3)]
    assert asked == [{}, {"dynamic": False}]


def test_contexts_that_overlap_give_the_compiler_back(monkeypatch):
    """Of two threads the first puts compiling off and gives it back; a class is compiled at once, as ever."""
    torch = SimpleNamespace(compile=lambda value, **_: ("compiled", value))
    monkeypatch.setitem(sys.modules, "torch", torch)
    compiles, first, second = torch.compile, imports.quick(), imports.quick()
    first.__enter__()
    second.__enter__()
    assert torch.compile(int) == ("compiled", int)
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert torch.compile is compiles
