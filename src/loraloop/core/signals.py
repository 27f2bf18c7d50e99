"""SIGTERM as an exception, and a closed standard output as SIGTERM: what is open is closed as after Ctrl+C."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TextIO

from loraloop.errors import TerminatedError

READER_GONE = threading.Event()
"""Set once a stream of this process has nobody who reads it, as after ``| head``."""


def reader_gone(stream: TextIO) -> None:
    """Note that nobody reads the stream any more; what is written to it from now on is dropped."""
    READER_GONE.set()
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # otherwise Python's own end writes what is left, and fails
        os.close(nowhere)


def terminate_without_reader() -> None:
    """Send this process SIGTERM if the reader of its output has gone, also while nothing is written."""
    with contextlib.suppress(OSError, AttributeError):  # a notebook, a test, or a process without standard output
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            reader_gone(sys.stdout)
    if READER_GONE.is_set():
        signal.raise_signal(signal.SIGTERM)


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Undo what a library does to SIGTERM within the context, as Ray does, whose handler ends the process at once."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():  # no other one may set handlers
            signal.signal(signal.SIGTERM, before)


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM (Slurm, Kubernetes, systemd, ``kill``) raise ``TerminatedError`` in the main thread.

    Where the signal is handled or ignored already, that stays.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a fork inherits the handler, and is to end at once
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        raise TerminatedError

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
