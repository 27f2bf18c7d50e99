"""Something that is done again and again beside other work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def repeating(call: Callable[[], None], seconds: float, name: str) -> Iterator[None]:
    """Make ``call`` on a thread, every so many ``seconds``, as long as the block runs and the process lives.

    Args:
        call: Handles its own errors: one that it raises ends the thread.
        seconds: Before the first call, and between two.
        name: The thread's.
    """
    ended = threading.Event()

    def run() -> None:
        while not ended.wait(seconds):
            call()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
