"""How far work is, on standard error: a bar on a terminal, otherwise a line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

T = TypeVar("T")

INTERVAL = 30.0
"""Seconds from one line to the next, at least."""
FIRST = 5.0
"""Seconds before the first line: work that ends sooner prints none."""


class Progress:
    """The progress of one piece of work, shown while the context is open.

    Args:
        label: What is done, such as ``training``.
        unit: What is counted, such as ``step``.
        total: How many there are; ``None`` where that is not known yet.
        keep: Whether a bar stays on the terminal when the work is done.
        clock: Seconds that pass evenly.
    """

    _last: ClassVar[tuple[Callable[[], float], float] | None] = None
    """The clock and the time of the last line: one piece of work that follows another adds none before its time."""

    def __init__(
        self,
        label: str,
        unit: str,
        total: int | None = None,
        *,
        keep: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.label, self.unit, self.total, self.done, self.facts = label, unit, total, 0, ""
        self._clock = clock
        self._keep = keep
        self._bar: Any = None
        self._task: Any = None
        self._first_done = 0
        self._started = self._due = clock()

    def __enter__(self) -> Self:
        self._begin(self.done)
        if sys.stderr.isatty():
            self._bar = _bar(transient=not self._keep)
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, facts=self.facts)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, done: int, total: int) -> None:
        """Count from ``done`` of ``total``: what was done before does not enter the time left."""
        self.total = total
        self._begin(done)
        self.update(done)

    def advance(self, count: int = 1, facts: str | None = None) -> None:
        """``count`` more are done; ``facts`` replaces what is said of them."""
        self.update(self.done + count, facts)

    def update(self, done: int, facts: str | None = None) -> None:
        """So many are done; ``facts`` replaces what is said of them, such as ``loss 0.412``."""
        self.done = done
        self.facts = self.facts if facts is None else facts
        if self._bar is not None:
            self._bar.update(self._task, total=self.total, completed=done, facts=self.facts)
        elif self._clock() >= self._due:
            now = self._clock()
            self._due = now + INTERVAL
            Progress._last = (self._clock, now)
            print(self._line(), file=sys.stderr, flush=True)

    def _begin(self, done: int) -> None:
        self.done = self._first_done = done
        self._started = self._clock()
        self._due = self._started + min(FIRST, INTERVAL)
        if Progress._last is not None and Progress._last[0] is self._clock:
            self._due = max(self._due, Progress._last[1] + INTERVAL)

    def _line(self) -> str:
        count = f"{self.unit} {self.done:,}" + (f" of {self.total:,}" if self.total else "")
        return f"{self.label}  " + ", ".join(filter(None, [count, self.facts, self._left()]))

    def _left(self) -> str:
        new = self.done - self._first_done
        if not self.total or new <= 0 or self.done >= self.total:
            return ""
        return f"{_duration((self._clock() - self._started) / new * (self.total - self.done))} left"


def track(items: Iterable[T], label: str, unit: str, total: int | None) -> Iterator[T]:
    """The ``items``, while it is shown how many of them were asked for."""
    with Progress(label, unit, total) as progress:
        for item in items:
            yield item
            progress.advance()


def show_bar(label: str, done: int, total: int, facts: str) -> None:
    """Draw a bar once, on a terminal alone: for work whose parts draw bars of their own meanwhile."""
    if sys.stderr.isatty():
        bar = _bar(transient=False)
        bar.add_task(label, total=total, completed=done, facts=facts)
        bar.console.print(bar.get_renderable())


def _bar(*, transient: bool) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[facts]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=transient,
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
