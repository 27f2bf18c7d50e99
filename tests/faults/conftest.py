"""Faults, injected into commands as a person gives them, and the table of what came of each."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

import warm
from conftest import Desk, Seen

SMALL = ("source.runs=4", "trainer.max_steps=4", "evaluation.max_rows=16", "tracker=none")


@pytest.fixture
def told(record_property: Callable[[str, object], None], office: Desk, tmp_path: Path) -> Callable[[str], None]:
    """Notes what the person was told, for the table: the last line, without this machine's folders."""

    def note(text: str) -> None:
        last = text.strip().splitlines()[-1].removeprefix("loraloop: ")
        record_property("told", last.replace(f"{tmp_path}/", "").replace(f"{office.folder}/", ""))

    return note


@dataclass(frozen=True)
class Broken:
    """Commands in a process in which something goes wrong."""

    desk: Desk

    def __call__(self, setup: str, *arguments: str) -> Seen:
        """Give ``loraloop ARGUMENTS`` in a process that runs the Python lines of ``setup`` first."""
        code = f"import sys\n{setup}\nfrom loraloop.__main__ import main\nsys.argv[0] = 'loraloop'\nmain()"
        done = warm.run([sys.executable, "-c", code, *arguments], cwd=self.desk.folder)
        return Seen(done.returncode, done.stdout, done.stderr)

    def killed(self, setup: str, *arguments: str) -> None:
        """Give the command in a process that ends by its own SIGKILL."""
        seen = self(f"import os, signal\ndef die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n{setup}", *arguments)
        assert seen.code == -signal.SIGKILL, seen


@pytest.fixture
def broken(office: Desk) -> Broken:
    """Commands in the office, in a process in which something goes wrong."""
    return Broken(office)


FULL_DISK = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, {bytes}))"
"""No file grows beyond this size; the error is met where a full disk's is."""
