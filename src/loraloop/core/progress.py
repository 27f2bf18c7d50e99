"""A progress bar for work of known length."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def bar(label: str, total: int) -> Iterator[Callable[[], None]]:
    """A bar on standard error while the context is open; nothing is drawn where that is no terminal.

    Args:
        label: What is going on, such as ``reading``.
        total: Steps that there are.

    Yields:
        A function to call after every step.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True) as shown:
        task = shown.add_task(label, total=total)
        yield lambda: shown.advance(task)
