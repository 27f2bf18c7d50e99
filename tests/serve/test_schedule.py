"""A command beside the server: when it starts, how it ends, and what becomes of its output."""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from pydantic import ValidationError

from loraloop.serve.schedule import Clock, Schedule
from waiting import PATIENCE, until

SOON = timedelta(milliseconds=10)


OVERDUE = "WARNING the scheduled command still runs after its interval"


@pytest.fixture
def lines(monkeypatch) -> Iterator[Callable[..., str]]:
    """A function that waits for the schedule's next line in the log, or its next one about an overdue command."""
    said: queue.Queue[str] = queue.Queue()
    late: queue.Queue[str] = queue.Queue()

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = f"{record.levelname} {record.getMessage()}"
            (late if line.startswith(OVERDUE) else said).put(line)

    logger, handler = logging.getLogger("loraloop.serve.schedule"), Handler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    monkeypatch.setattr("loraloop.serve.schedule.PATIENCE", PATIENCE)
    yield lambda overdue=False: (late if overdue else said).get(timeout=PATIENCE)
    logger.removeHandler(handler)
    logger.setLevel(level)


@contextmanager
def clock(code: str, every: timedelta = SOON) -> Iterator[Clock]:
    """A clock that runs Python code."""
    made = Clock([sys.executable, "-c", code], every)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def test_its_output_is_logged_line_by_line(lines):
    """Both streams reach the log as they are written, before the command has ended, and bytes that are no text too."""
    code = "import sys, time; print('one'); print('two', file=sys.stderr)"
    code += "; sys.stdout.buffer.write(bytes([255, 10])); sys.stdout.buffer.flush(); time.sleep(600)"
    with clock(code):
        said = [lines() for _ in range(3)]
    assert said == ["INFO scheduled: one", "INFO scheduled: two", "INFO scheduled: \N{REPLACEMENT CHARACTER}"]


def test_it_is_started_again_and_again(lines):
    """A command that ended is started anew, each time in a process of its own."""
    with clock("import os; print(os.getpid())"):
        assert len({lines() for _ in range(3)}) == 3


def test_never_two_at_once(lines, tmp_path):
    """What falls due while the command runs waits for its end: a command never meets itself."""
    code = f"""
import os, time

os.mkdir({str(tmp_path / "busy")!r})
print("alone")
time.sleep(0.05)
os.rmdir({str(tmp_path / "busy")!r})
"""
    with clock(code):
        assert {lines() for _ in range(3)} == {"INFO scheduled: alone"}


def test_a_command_that_hangs_is_told(lines):
    """One that still runs when the next would be due is a warning in the log."""
    with clock("import time; print('begun'); time.sleep(600)"):
        assert lines() == "INFO scheduled: begun"
        assert lines(overdue=True) == f"{OVERDUE} of 0.01 s; none is begun beside it"


def test_a_failing_command_is_told_and_tried_again(lines):
    """A status other than zero is an error in the log, and the next start comes as it would have."""
    with clock("raise SystemExit(3)"):
        for _ in range(2):
            assert lines() == "ERROR the scheduled command ended with status 3; the server goes on"


def test_a_command_that_is_not_there(lines):
    """What cannot be started is an error in the log."""
    made = Clock(["/nowhere/loraloop"], SOON)
    made.start()
    assert (
        lines() == "ERROR /nowhere/loraloop cannot be started: [Errno 2] No such file or directory: '/nowhere/loraloop'"
    )
    made.stop()


def test_stopping_ends_the_command(lines):
    """A command that runs when the schedule ends gets SIGTERM, and is gone when ``stop`` returns."""
    code = "import os, signal, sys, time; signal.signal(15, lambda *_: (print('bye'), sys.exit()))"
    with clock(f"{code}; print(os.getpid()); time.sleep(600)") as made:
        process = int(lines().rpartition(" ")[2])
        made.stop()
    assert lines() == "INFO scheduled: bye"
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_command_that_does_not_listen(lines, monkeypatch):
    """One that ignores SIGTERM is killed after its time."""
    monkeypatch.setattr("loraloop.serve.schedule.PATIENCE", 0.05)
    code = "import os, signal, time; signal.signal(15, signal.SIG_IGN); print(os.getpid()); time.sleep(600)"
    with clock(code) as made:
        process = int(lines().rpartition(" ")[2])
        made.stop()
    assert until(lambda: made._child.returncode, "the command's end is known") == -signal.SIGKILL
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_the_first_comes_after_an_interval():
    """Nothing is started at the start: the first thing that a schedule does is to wait for as long as it is told."""
    waits = []

    class Ended(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            return True

    made = Clock(["/nowhere/loraloop"], timedelta(hours=4))
    made._stopping = Ended()
    made.start()
    made.stop()
    assert [round(each, -1) for each in waits] == [4 * 3600]


def test_no_schedule():
    """Without an interval there is no thread that would start a process."""
    before = threading.enumerate()
    with Schedule().running(["/nowhere/loraloop"]):
        assert threading.enumerate() == before


def test_the_part_starts_its_command(lines):
    """``every`` is the time from one start to the next."""
    with Schedule(every="0.01s").running([sys.executable, "-c", "print('tick')"]):
        assert lines() == "INFO scheduled: tick"


@pytest.mark.parametrize("every", ["often", "4", "0h", "-1h", ""])
def test_what_is_no_interval(every):
    """Anything else is refused with an example."""
    with pytest.raises(ValidationError, match="4h"):
        Schedule(every=every)
