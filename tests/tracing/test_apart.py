"""A place that a process of its own sends to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest

from file_place import File
from loraloop.errors import TrackingError
from loraloop.tracing.apart import Apart
from waiting import until


def lines(path: Path) -> list[tuple[int, str]]:
    """Who sent what."""
    read = (line.split(" ", 1) for line in path.read_text().splitlines())
    return [(int(process), text) for process, text in read]


def test_one_child_does_it_all(tmp_path):
    """What is sent and told goes through one other process, which an error does not end and a close does."""
    with closing(Apart(File(tmp_path / "sent"))) as apart:
        apart.send(["a"])
        with pytest.raises(TrackingError, match="no bad ones"):
            apart.send(["bad"])
        apart.tell("b")
        (first, one), (second, other) = lines(tmp_path / "sent")
        assert (first, one, other) == (second, "['a']", "['b']")
        assert first != os.getpid()
    assert not psutil.pid_exists(first)


def test_a_killed_child_is_replaced(tmp_path):
    """What a killed process was to send is refused, and the next call starts another."""
    with closing(Apart(File(tmp_path / "sent"))) as apart:
        apart.send(["a"])
        ((child, _),) = lines(tmp_path / "sent")
        os.kill(child, signal.SIGKILL)
        with pytest.raises(TrackingError, match="was ended"):
            apart.send(["b"])
        apart.send(["b"])
        assert [text for _, text in lines(tmp_path / "sent")] == ["['a']", "['b']"]


def test_it_ends_with_a_killed_server(tmp_path):
    """No child outlives a process that had no time to end it."""
    program = (
        "import os, signal, sys; from pathlib import Path; from loraloop.tracing.apart import Apart\n"
        "from file_place import File\n"
        f"apart = Apart(File(Path({str(tmp_path / 'sent')!r})))\n"
        "apart.send(['a']); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    here = {"PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], env=os.environ | here, check=False)
    assert done.returncode == -signal.SIGKILL
    ((child, _),) = lines(tmp_path / "sent")
    until(lambda: not psutil.pid_exists(child), "the child has ended")
