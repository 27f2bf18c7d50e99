"""Stage ``watch``: a study at work, and a person's hand in it."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loraloop.records import Job


def watch(
    job: Job, study: str, storage: str | None, folder: str, stop: int | None, clone: int | None, change: Sequence[str]
) -> None:
    """Show the study's trials with their validation curves, live on a terminal and once elsewhere.

    With ``stop`` or ``clone`` it only does that.

    Raises:
        DataError: There is no such study.
        ConfigError: The trial cannot be stopped or cloned.
    """
    from rich.console import Console

    from loraloop.sweep import analysis, steering, watch_terminal, watching
    from loraloop.sweep.storage import address

    found = analysis.load(study, address(storage, folder))
    if stop is not None:
        print(steering.stop(found, int(stop)))
    if clone is not None:
        print(steering.clone(found, int(clone), change))
    if stop is not None or clone is not None:
        return
    if sys.stdin.isatty() and sys.stdout.isatty():
        watch_terminal.watch(found)
        return
    Console(highlight=False, markup=False).print(watching.draw(watching.look(found)))
