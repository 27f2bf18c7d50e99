"""SIGTERM as an exception, so that what is open is closed as after Ctrl+C."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from loraloop.errors import TerminatedError


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
