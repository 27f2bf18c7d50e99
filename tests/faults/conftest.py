"""Faults, injected into commands as a person gives them, and the table of what came of each."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import Desk, Seen
from waiting import PATIENCE

SMALL = ("source.runs=4", "trainer.max_steps=4", "evaluation.max_rows=16", "tracker=none")
TABLE = "LORALOOP_FAULT_TABLE"
"""The file that ``scripts/faults.py`` reads the rows from."""


@pytest.fixture
def row(tmp_path: Path) -> Callable[[str, str, str, str], None]:
    """Adds a row to the table: the fault, where it struck, what happened, and what the person was told."""

    def add(fault: str, stage: str, happened: str, told: str) -> None:
        if file := os.environ.get(TABLE):
            said = re.sub(rf"{re.escape(str(tmp_path))}/?", "", told.strip().splitlines()[-1] if told.strip() else "-")
            line = {"fault": fault, "stage": stage, "happened": happened, "told": said}
            with Path(file).open("a", encoding="utf8") as table:
                table.write(json.dumps(line) + "\n")

    return add


@dataclass(frozen=True)
class Broken:
    """Commands in a process in which something goes wrong."""

    desk: Desk

    def __call__(self, setup: str, *arguments: str) -> Seen:
        """Give ``loraloop ARGUMENTS`` in a process that runs the Python lines of ``setup`` first."""
        code = f"import sys\n{setup}\nfrom loraloop.__main__ import main\nsys.argv[0] = 'loraloop'\nmain()"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            cwd=self.desk.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return Seen(done.returncode, done.stdout, done.stderr)

    def killed(self, setup: str, *arguments: str) -> None:
        """Give the command in a process that ends by its own SIGKILL."""
        seen = self(f"import os, signal\ndef die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n{setup}", *arguments)
        assert seen.code == -signal.SIGKILL, seen


@pytest.fixture
def broken(desk: Desk) -> Broken:
    """Commands in this test's folder, in a process in which something goes wrong."""
    return Broken(desk)


FULL_DISK = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({bytes}, {bytes}))"
"""No file grows beyond this size; the error is met where a full disk's is."""
LITTLE_MEMORY = "import resource\nresource.setrlimit(resource.RLIMIT_DATA, ({bytes}, {bytes}))"
