"""docs/own_task.md: exactly its commands, in its order, take a CSV through the whole loop."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from pathlib import Path

import pytest

from waiting import PATIENCE, reaped

PAGE = Path(__file__).parents[1] / "docs" / "own_task.md"
PORT = "8123"


class Reader:
    """Does what the page says: loraloop in this process, the server in one of its own, the rest in bash."""

    def __init__(self, desk):
        self.desk = desk
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])

    def give(self, block: str) -> str:
        """What a block of the page prints."""
        block = block.replace(PORT, self.port)
        if not block.startswith("loraloop"):
            return "" if block == "kill %1\n" else self.bash(block)
        return "\n".join(self.loraloop(line) for line in block.splitlines())

    def bash(self, script: str) -> str:
        """What a script prints; none of its commands may fail."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.desk.folder, env=os.environ, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}{done.stdout}{done.stderr}"
        return done.stdout

    def loraloop(self, line: str) -> str:
        """What a command prints; one in the background has printed all but its end."""
        command = line.removeprefix("loraloop ").removesuffix(" | cat")
        words = self.bash(f"printf '%s\\0' {command.removesuffix(' &')}").split("\0")[:-1]
        if not command.endswith(" &"):
            return self.desk(*words).out
        server, lines = self.desk.start(*words), []
        for said in server.stdout:
            lines.append(said)
            if said.strip().startswith("stop"):
                break
        return "".join(lines)


@pytest.fixture(scope="module")
def printed(office, tmp_path_factory):
    """Each block of the page and what it printed."""
    reader = Reader(type(office)(tmp_path_factory.mktemp("own_task")))
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE.read_text("utf8"), re.M | re.S)
    with reaped():
        return [(block, reader.give(block)) for block in blocks]


def said(printed, *words):
    """What the blocks with all of these words printed, in their order."""
    return [out for block, out in printed if all(word in block for word in words)]


def test_the_commands_of_the_page_close_the_loop(printed):
    """From a CSV to a promotion and back: role, ratings by link, command and API, review, retraining, ledger."""
    assert "rows         40 to train on, 20 held out" in said(printed, "stage=preview")[0]
    assert "tickets version 1 (candidate, champion)" in said(printed, "trainer.max_steps=30")[0]
    assert "tickets: tickets@1" in said(printed, "stage=serve")[0]
    assert all(line.split()[1] == "tickets@1" for line in said(printed, "cat > ask.sh")[0].splitlines())
    assert said(printed, "-d rating=2") == ["The rating is kept\n"]
    assert "answered by  tickets@1" in said(printed, "stage=feedback")[0]
    assert "10 accepted, 0 rejected, 0 wait" in said(printed, "stage=review")[0]
    retrained, promoted = said(printed, "stage=tick")
    assert "tickets: rollout: version 2 answers 50% of the conversations" in retrained
    assert "tickets: version 2 is the champion" in promoted
    assert said(printed, "until bash")[0].startswith("tickets@2 ")
    assert "version 2 was champion" in said(printed, "at=")[0]
    assert "version 1" in said(printed, "stage=rollback")[0]
