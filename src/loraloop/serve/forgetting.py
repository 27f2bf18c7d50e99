"""Sessions that were erased are forgotten by the backend too, which keeps of them what later prompts could reuse."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

SECONDS = 5.0
"""Between two looks for what another process erased."""


@contextmanager
def forgetting(erased: Callable[[], int], forget: Callable[[], None], seconds: float = SECONDS) -> Iterator[None]:
    """Within the block, call ``forget`` whenever more sessions are erased than at the last look.

    Args:
        erased: How many sessions were ever erased.
        forget: Is called again at the next look where it fails.
        seconds: Between two looks.
    """
    stopping, failing, known = threading.Event(), False, erased()

    def watch() -> None:
        nonlocal failing, known
        while not stopping.wait(seconds):
            try:
                now = erased()
                if now != known:
                    forget()
                failing, known = False, now
            except Exception as error:  # the thread goes on, whatever it was
                if not failing:
                    logger.warning("what the backend keeps of erased sessions is not forgotten yet: %s", error)
                failing = True

    thread = threading.Thread(target=watch, name="forgetting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
