"""Nodes of a Ray cluster on this machine, each with processes of its own that can be killed and a clock of its own."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

OTHER = Path(__file__).parent / "other_clock"


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it; nothing if it has ended."""
    try:
        return [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return []


def send(process: psutil.Process, number: signal.Signals) -> None:
    """Send a signal to a process and all below it."""
    for each in family(process):
        with suppress(psutil.NoSuchProcess):
            each.send_signal(number)


def clock(hours: int) -> dict[str, str]:
    """Environment of a node whose workers' clocks are so many hours ahead, by Debian's ``faketime``."""
    if hours and not shutil.which("faketime"):
        raise SystemExit("apt-get install faketime")
    return {"PYTHONPATH": str(OTHER), "FAKETIME": f"{hours:+d}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1"} if hours else {}


def ahead(hours: int) -> list[str]:
    """What stands before a command so that all its clocks are so many hours ahead."""
    return ["env", *(f"{name}={value}" for name, value in clock(hours).items()), "faketime", "-m", "-f", f"{hours:+d}h"]


class Nodes:
    """A head and other nodes, with one core each.

    Args:
        port: Of the head.
        clocks: Hours by which the clocks of each one's workers are ahead, the head's first.
        log: What they print.
    """

    def __init__(self, port: int, clocks: Sequence[int], log: Path) -> None:
        import ray

        os.environ["RAY_AUTH_MODE"] = "disabled"  # the sweep's too
        self.address = f"127.0.0.1:{port}"
        self.nodes: list[psutil.Process] = []
        head = ["--head", f"--port={port}", "--include-dashboard=false"]
        self.nodes.append(self._start(head, clocks[0], log))
        self._until(lambda: self._answers(port))
        ray.init(self.address, log_to_driver=False, logging_level="ERROR")
        for hours in clocks[1:]:  # one by one, for on one machine they would take the same names
            self.nodes.append(self._start([f"--address={self.address}"], hours, log))
            self._until(lambda: len(self.alive()) == len(self.nodes))

    @staticmethod
    def _start(where: Sequence[str], hours: int, log: Path) -> psutil.Process:
        ray = str(Path(sys.executable).with_name("ray"))
        small = ["--num-cpus=1", f"--object-store-memory={80 * 2**20}", "--block", "--disable-usage-stats"]
        with log.open("ab") as stream:
            given = os.environ | clock(hours)
            return psutil.Popen([ray, "start", *where, *small], env=given, stdout=stream, stderr=stream)

    @staticmethod
    def _answers(port: int) -> bool:
        return any(each.laddr.port == port for each in psutil.net_connections("tcp") if each.status == "LISTEN")

    @staticmethod
    def _until(condition: Callable[[], bool], seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("the nodes start")
            time.sleep(0.5)

    def alive(self) -> list[str]:
        """Nodes that Ray believes to be alive."""
        import ray

        return [node["NodeID"] for node in ray.nodes() if node["Alive"]]

    def kill(self) -> None:
        """End the last node with all its processes."""
        send(self.nodes[-1], signal.SIGKILL)

    def silence(self) -> None:
        """Stop the last node until Ray gives it up, and let it go on then."""
        before = len(self.alive())
        send(self.nodes[-1], signal.SIGSTOP)
        self._until(lambda: len(self.alive()) < before, 300)
        time.sleep(10)  # its trial is another node's by now
        send(self.nodes[-1], signal.SIGCONT)

    def close(self) -> None:
        """End them all."""
        import ray

        ray.shutdown()
        for each in reversed(self.nodes):
            send(each, signal.SIGKILL)
