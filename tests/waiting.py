"""Waiting and processes in tests: a wait is for a condition, and ends in minutes where it never comes true."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
PATIENCE = 600.0
"""Seconds after which whatever is waited for will not come: no test proves how fast a machine is."""
_running: list[subprocess.Popen[Any]] = []


def until(condition: Callable[[], T], what: str, pause: float = 0.02) -> T:
    """What ``condition`` returns as soon as that is true.

    Args:
        condition: Looked at again and again; an exception that it raises ends the wait.
        what: Names it in the error.
        pause: Seconds between two looks.
    """
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end, f"{what}: not within {PATIENCE:g} s"
        time.sleep(pause)
    return found


def spawn(command: Sequence[str], **settings: Any) -> subprocess.Popen[Any]:
    """Start a process that is ended with the test, as ``subprocess.Popen`` does: text is the default."""
    return kept(subprocess.Popen(command, **{"text": True} | settings))


def kept(process: subprocess.Popen[Any]) -> subprocess.Popen[Any]:
    """Let ``reaped`` end this process."""
    _running.append(process)
    return process


@contextlib.contextmanager
def reaped() -> Iterator[None]:
    """End what is started within the block and still runs after it, and its process group if it leads one."""
    before = len(_running)
    try:
        yield
    finally:
        for process in _running[before:]:
            if process.poll() is None:
                leads = os.getpgid(process.pid) == process.pid
                (os.killpg if leads else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
        del _running[before:]


def listen_to_ctrl_c() -> None:
    """Let SIGINT end this process and those that it starts, as at a terminal.

    A shell that starts a command in the background without job control makes it and its children ignore SIGINT.
    """
    main = threading.current_thread() is threading.main_thread()
    if main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
