"""Progress on standard error."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys

import pytest

import warm
from loraloop.core.progress import Progress, show_bar, track


class Clock:
    """Seconds that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        """The time now."""
        return self.now


def lines(capsys):
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()


def test_without_a_terminal_a_line_comes_every_half_minute(capsys):
    """The first line comes after 5 s, the next ones at least 30 s apart, with step, facts and time left."""
    clock = Clock()
    with Progress("training", "step", 480, clock=clock) as progress:
        for step in range(1, 121):
            clock.now += 1
            progress.update(step, f"loss {1 / step:.3f}, 11,300 tokens/s")
    assert lines(capsys) == [
        "training  step 5 of 480, loss 0.200, 11,300 tokens/s, 7 min 55 s left",
        "training  step 35 of 480, loss 0.029, 11,300 tokens/s, 7 min 25 s left",
        "training  step 65 of 480, loss 0.015, 11,300 tokens/s, 6 min 55 s left",
        "training  step 95 of 480, loss 0.011, 11,300 tokens/s, 6 min 25 s left",
    ]


def test_short_work_prints_nothing(capsys):
    """Work that ends within 5 s leaves no line."""
    clock = Clock()
    with Progress("training", "step", 4, clock=clock) as progress:
        for _ in range(4):
            clock.now += 1
            progress.advance()
    assert lines(capsys) == []


def test_steps_of_an_earlier_run_do_not_enter_the_time_left(capsys):
    """After a resume at step 100 the time left follows from the new steps alone; facts stay until they are replaced."""
    clock = Clock()
    with Progress("training", "step", clock=clock) as progress:
        progress.start(100, 200)
        clock.now += 60
        progress.advance(10, "loss 0.5")
        clock.now += 3600
        progress.advance(0)
    assert lines(capsys) == [
        "training  step 110 of 200, loss 0.5, 9 min 00 s left",
        "training  step 110 of 200, loss 0.5, 9 h 09 min left",
    ]


def test_work_of_unknown_size_says_how_much_is_done(capsys, monkeypatch):
    """Without a total, a line holds the count alone; the items come through as they are."""
    monkeypatch.setattr("loraloop.core.progress.INTERVAL", 0)
    assert list(track("abc", "reading", "page", None)) == ["a", "b", "c"]
    assert lines(capsys) == ["reading  page 1", "reading  page 2", "reading  page 3"]


def on_a_terminal(code: str) -> str:
    """What a process shows on a terminal."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # what Linux says when nobody holds the other end any more
        pass
    os.close(ours)
    assert process.wait() == 0
    return shown.decode()


def test_on_a_terminal_there_is_a_bar_and_no_line():
    """A bar counts on a terminal, however short the interval of lines is."""
    shown = on_a_terminal(
        "from loraloop.core import progress\nprogress.INTERVAL = 0\n"
        "with progress.Progress('training', 'step', 3, keep=True) as shown:\n    shown.update(3, 'loss 0.1')\n"
    )
    assert re.search(r"training.*3/3.*loss 0\.1", shown)
    assert "step" not in shown


def test_a_bar_is_drawn_once_on_a_terminal_alone(capsys):
    """A bar that stands still is shown where it can be seen and nowhere else."""
    show_bar("sweep", 2, 4, "best 0.1")
    assert lines(capsys) == []
    shown = on_a_terminal("from loraloop.core.progress import show_bar\nshow_bar('sweep', 2, 4, 'best 0.1')")
    assert re.search(r"sweep.*2/4.*best 0\.1", shown)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """What the default command prints to a log, with lines as often as there is something to say."""
    code = "from loraloop.core import progress; progress.INTERVAL = 0; from loraloop.__main__ import main; main()"
    small = ["source.runs=4", "trainer.max_steps=4", "evaluation.max_rows=16", "tracker=none"]
    result = warm.run([sys.executable, "-c", code, *small], cwd=tmp_path_factory.mktemp("job"))
    assert result.returncode == 0, result.stderr
    return result.stderr.splitlines()


def test_a_job_in_the_background_says_where_it_is(job):
    """A real job whose output is a file tells of every step of training and every batch of evaluation."""
    step = r"training  step 2 of 4, loss \d\.\d{3}, [\d,]+ tokens/s, \d+ s left"
    assert [line for line in job if re.fullmatch(step, line)], job
    assert [line for line in job if re.match(r"evaluate base  pass \d+ of 32", line)]
    assert [line for line in job if re.match(r"evaluate adapter  pass 32 of 32", line)]


def test_work_that_follows_other_work_waits_for_its_time(capsys):
    """Several pieces of work, one after the other, together print a line every half minute at most."""
    clock = Clock()
    times = []
    for name in ("read", "train", "evaluate", "report"):
        with Progress(name, "step", 10, clock=clock) as progress:
            for _ in range(10):
                clock.now += 1
                progress.advance()
                times += [clock.now] * len(lines(capsys))
    assert times == [1005.0, 1035.0]
