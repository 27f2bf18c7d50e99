"""SIGTERM as an exception."""

from __future__ import annotations

import os
import signal

import pytest

from loraloop.core.signals import sigterm_kept, sigterm_raises
from loraloop.errors import TerminatedError


def test_sigterm_raises_within_the_block_alone():
    """SIGTERM in the block is an exception that `except KeyboardInterrupt` takes; afterwards it is as before."""
    with pytest.raises(KeyboardInterrupt) as raised, sigterm_raises():
        signal.raise_signal(signal.SIGTERM)
    assert raised.type is TerminatedError
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_a_library_does_to_sigterm_is_undone():
    """A handler that is set within the context is gone after it."""
    before = signal.getsignal(signal.SIGTERM)
    with sigterm_kept():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_handler_of_somebody_else_stays():
    """Where SIGTERM is ignored already, it still is within the block."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with sigterm_raises():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_forked_child_ends_at_once():
    """A process that was forked within the block is ended by SIGTERM, as a pool of workers expects."""
    with sigterm_raises():
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(signal.SIGTERM)
            finally:
                os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGTERM
