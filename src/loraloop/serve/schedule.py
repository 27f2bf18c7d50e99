"""A command that the server starts at an interval, in a process of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import IO

from loraloop.core.durations import Span, span
from loraloop.core.part import part

PATIENCE = 10
"""Seconds between SIGTERM and SIGKILL for a command that still runs when the server ends."""
logger = logging.getLogger(__name__)


@part
class Schedule:
    """The interval at which a server starts its command.

    Attributes:
        every: Such as ``4h``; the first start comes one interval after the server's. ``None``: never.
    """

    every: Span | None = None

    @contextmanager
    def running(self, command: Sequence[str]) -> Iterator[None]:
        """Start the command at its interval within the block; one that still runs at the end gets SIGTERM."""
        if self.every is None:
            yield
            return
        clock = Clock(command, span(self.every))
        clock.start()
        try:
            yield
        finally:
            clock.stop()


class Clock:
    """Starts a command at an interval, and writes its output to the log line by line.

    One command runs at a time: starts that fall due meanwhile become one, when it has ended.

    Args:
        command: What is started; one that fails is logged, and is started again when it is due.
        every: From one start to the next.
    """

    def __init__(self, command: Sequence[str], every: timedelta) -> None:
        self._command, self._every = tuple(command), every.total_seconds()
        self._thread = threading.Thread(target=self._run, name="schedule", daemon=True)
        self._stopping = threading.Event()
        self._starting = threading.Lock()
        self._child: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the thread; the command starts one interval later."""
        self._thread.start()

    def stop(self) -> None:
        """Start no further command, and end the one that runs."""
        with self._starting:
            self._stopping.set()
            child = self._child
        if child is not None and child.poll() is None:
            child.terminate()
            try:
                child.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                child.kill()
        self._thread.join(PATIENCE)  # what the command started itself may hold its output open

    def _run(self) -> None:
        due = time.monotonic() + self._every
        while not self._stopping.wait(max(0.0, due - time.monotonic())):
            self._run_once()
            due = max(due + self._every, time.monotonic())

    def _run_once(self) -> None:
        try:
            child = self._start_child()
        except OSError as error:
            logger.error("%s cannot be started: %s", self._command[0], error)
            return
        if child is None:
            return
        overdue = threading.Timer(self._every, self._warn)
        overdue.daemon = True
        overdue.start()
        try:
            with child:
                self._log(child.stdout)
        finally:
            overdue.cancel()
        if child.returncode and not self._stopping.is_set():
            logger.error("the scheduled command ended with status %d; the server goes on", child.returncode)

    def _warn(self) -> None:
        logger.warning(
            "the scheduled command still runs after its interval of %g s; none is begun beside it", self._every
        )

    def _start_child(self) -> subprocess.Popen[str] | None:
        with self._starting:
            if self._stopping.is_set():
                return None
            self._child = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf8",
                errors="replace",
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
            return self._child

    def _log(self, output: IO[str] | None) -> None:
        for line in output or ():
            if line.strip():
                logger.info("scheduled: %s", line.rstrip())
