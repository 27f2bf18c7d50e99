"""Child processes that answer a line with a line, and are replaced when they hang or die.

``multiprocessing`` would import the caller's main module again in every child, and one killed child breaks all of a
``ProcessPoolExecutor``; a hung one cannot be replaced there at all.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import IO, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class LostError(Exception):
    """The worker gave no answer; the message is the reason, fit for a person.

    Attributes:
        late: Whether the worker was ended because it had taken too long.
    """

    def __init__(self, reason: str, *, late: bool = False) -> None:
        super().__init__(reason)
        self.late = late


class Worker:
    """One child process, started by the first question and again by the first one after it was lost.

    Args:
        command: Program that reads a line from standard input and writes a line to standard output, until the end.
        environment: Variables set for the child beside those of this process.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._command = command
        self._environment = environment
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[bytes] | None = None

    def ask(self, question: str, seconds: float) -> str:
        """The child's answer to one line.

        Raises:
            LostError: There was no answer within ``seconds``, or the child died.
        """
        process = self._running()
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            _kill(process)

        timer = threading.Timer(seconds, expire)
        timer.start()
        answer = ""
        try:
            with contextlib.suppress(BrokenPipeError):
                answer = _exchange(process, question)
        finally:
            timer.cancel()
        lost = not answer.endswith("\n")
        if lost or expired.is_set():
            late = expired.is_set() or process.wait() == -signal.SIGXCPU
            reason = f"took longer than {seconds:g} s" if expired.is_set() else self._cause()
            self.close()
            if lost:
                raise LostError(reason, late=late)
        return answer

    def close(self) -> None:
        """End the child and whatever it started; the thread that asks and the one that ends all may both call it."""
        process, self._process = self._process, None
        errors, self._errors = self._errors, None
        if process is not None:
            _kill(process)
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    if pipe is not None:
                        pipe.close()
            process.wait()
        if errors is not None:
            errors.close()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env={**os.environ, **self._environment},
                encoding="utf-8",
                start_new_session=True,
            )
        return self._process

    def _cause(self) -> str:
        code = self._process.wait() if self._process is not None else None
        said = b""
        if self._errors is not None:
            self._errors.seek(0)
            said = self._errors.read().strip()
        last = said.splitlines()[-1].decode(errors="replace") if said else "without a message"
        return f"the worker died (exit status {code}): {last}"


class Pool:
    """Several workers behind one streaming map.

    Args:
        stay: Whether the workers outlive a :meth:`map`, until :meth:`close`.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], workers: int, *, stay: bool = False
    ) -> None:
        self.stay = stay
        self._workers = [Worker(command, environment) for _ in range(workers)]
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()  # the last one is warm: one at a time needs no other
        self._gathering = threading.Lock()
        for worker in reversed(self._workers):
            self._idle.put(worker)

    def ask(self, question: str, seconds: float) -> str:
        """Ask the next idle worker; see :meth:`Worker.ask`."""
        worker = self._idle.get()
        try:
            return worker.ask(question, seconds)
        finally:
            self._idle.put(worker)

    def ask_alone(self, question: str, seconds: float) -> str:
        """Ask one worker while the others rest; see :meth:`Worker.ask`."""
        with self._gathering:  # two that each hold some of the workers would wait for ever
            workers = [self._idle.get() for _ in self._workers]
        try:
            return workers[0].ask(question, seconds)
        finally:
            for worker in workers:
                self._idle.put(worker)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """``function(item)`` for each item, in order, computed ahead in threads by a few items per worker only.

        Ends the workers, unless they stay, when the last result is taken, when the iterator is closed, and on Ctrl+C.
        """
        ahead: deque[Future[R]] = deque()
        with ThreadPoolExecutor(len(self._workers)) as threads:
            try:
                for item in items:
                    ahead.append(threads.submit(function, item))
                    if len(ahead) > 4 * len(self._workers):
                        yield ahead.popleft().result()
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()
                if not self.stay:
                    self.close()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            worker.close()


def _exchange(process: subprocess.Popen[str], question: str) -> str:
    if process.stdin is None or process.stdout is None:
        return ""
    process.stdin.write(question + "\n")
    process.stdin.flush()
    return process.stdout.readline()


def _kill(process: subprocess.Popen[str]) -> None:
    # The child leads a process group of its own: Tesseract, which it may have started, goes with it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
