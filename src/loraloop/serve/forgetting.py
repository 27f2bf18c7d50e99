"""Sessions that were erased are forgotten by the backend too, which keeps of them what later prompts could reuse."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager

from loraloop.core.repeating import repeating

logger = logging.getLogger(__name__)

SECONDS = 5.0
"""Between two looks for what another process erased."""


def forgetting(
    erased: Callable[[], int], forget: Callable[[], None], seconds: float = SECONDS
) -> AbstractContextManager[None]:
    """Within the block, call ``forget`` whenever more sessions are erased than at the last look.

    Args:
        erased: How many sessions were ever erased.
        forget: Is called again at the next look where it fails.
        seconds: Between two looks.
    """
    failing, known = False, erased()

    def look() -> None:
        nonlocal failing, known
        try:
            now = erased()
            if now != known:
                forget()
            failing, known = False, now
        except Exception as error:  # the next look follows, whatever it was
            if not failing:
                logger.warning("what the backend keeps of erased sessions is not forgotten yet: %s", error)
            failing = True

    return repeating(look, seconds, "forgetting")
