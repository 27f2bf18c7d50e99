"""Processes that have imported the libraries: ``python -m loraloop`` and ``python -c`` without ten seconds of imports.

A test that needs a process of its own, to kill it or to look at what it leaves, seldom needs its imports. A server per
process of tests imports them once and forks for each command. What it forks is a child of the test, as after
``subprocess.Popen``: it has the arguments, folder, environment and streams that it would have, and its own end.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import waiting
from loraloop.tracker.mlflow import SETTINGS

PRELOADED = (
    "hydra_plugins.loraloop_launcher._preload", "mlflow.store.tracking.sqlalchemy_store", "hydra.main",
    "loraloop.cli.prepare", "matplotlib.backends.backend_agg", "matplotlib.figure", "optuna", "sacrebleu",
)  # fmt: skip
READ_AT_IMPORT = ("CUDA", "HF_", "MKL_", "OMP_", "PYTHON", "TRANSFORMERS_")
"""Variables whose change the server would not notice: a command with one is started cold."""
DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    **SETTINGS,
}
"""What the package sets before it imports a library that reads it."""
PR_SET_CHILD_SUBREAPER = 36
MOST = 1 << 17
_asking = threading.Lock()


class Warm(subprocess.Popen[str]):
    """``subprocess.Popen`` of ``[sys.executable, "-m" or "-c", ...]``, forked unless its environment forbids it."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        cwd, env, given = rest[4], rest[5], rest[9:15]
        asked = {"arguments": list(args[1:]), "folder": str(cwd or Path.cwd()), "environment": dict(env or os.environ)}
        if _differs(asked["environment"]):
            super()._execute_child(args, *rest)  # type: ignore[misc]
            return
        streams = [fd if fd != -1 else number for number, fd in enumerate((given[0], given[3], given[5]))]
        with _asking, _adopting():
            server = _server()
            socket.send_fds(server, [json.dumps(asked).encode()], streams)
            self.pid = int(server.recv(MOST))
            server.recv(MOST)  # it is a child of this process now
        self._child_created = True
        self._close_pipe_fds(*given)  # type: ignore[attr-defined]


def spawn(command: Sequence[str], **settings: Any) -> subprocess.Popen[str]:
    """Start such a process, which is ended with the test."""
    return waiting.kept(Warm(command, text=True, **settings))


def run(command: Sequence[str], **settings: Any) -> subprocess.CompletedProcess[str]:
    """Let such a process come to its end, as ``subprocess.run`` does with captured text."""
    with Warm(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **settings) as process:
        try:
            out, err = process.communicate(timeout=waiting.PATIENCE)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Become the parent of whatever a descendant leaves behind meanwhile."""
    prctl = ctypes.CDLL(None).prctl
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        prctl(PR_SET_CHILD_SUBREAPER, 0)


@functools.cache
def _started() -> Mapping[str, str]:
    """The environment that the server starts with."""
    return os.environ | DEFAULTS


def _differs(environment: Mapping[str, str]) -> bool:
    before = _started()
    changed = {key for key in before.keys() | environment.keys() if before.get(key) != environment.get(key)}
    return any(key.startswith(READ_AT_IMPORT) and key != "PYTHONPATH" for key in changed - DEFAULTS.keys())


@functools.cache
def _server() -> socket.socket:
    """A connection to the server; it ends when this process does."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    command = [sys.executable, str(Path(__file__)), str(theirs.fileno())]
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}  # as most tests give
    subprocess.Popen(command, pass_fds=[theirs.fileno()], env=dict(_started()), **streams)
    theirs.close()
    return ours


def _serve(connection: socket.socket) -> dict[str, Any]:
    """Fork for each command that is asked for, until nobody can ask; return in the child, with what it is to do."""
    while True:
        message, streams, *_ = socket.recv_fds(connection, MOST, 3)
        if not message:
            os._exit(0)
        between = os.fork()
        if not between:
            between = os.getpid()
            if child := os.fork():
                connection.send(str(child).encode())
                os._exit(0)
            while os.getppid() == between:
                time.sleep(0.001)
            connection.close()
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
                os.close(stream)
            return dict(json.loads(message))
        os.waitpid(between, 0)
        for stream in streams:
            os.close(stream)
        connection.send(b"adopted")


def _become(arguments: Sequence[str], folder: str, environment: dict[str, str]) -> None:
    """Be the Python that was asked for."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    own = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    how, what, *arguments = arguments
    sys.path[:1] = [folder if how == "-m" else "", *own]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if how == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    sys.argv = ["-c", *arguments]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    exec(compile(what, "<string>", "exec"), main.__dict__)  # noqa: S102  what a test asked for


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the tests
    _connection = socket.socket(fileno=int(sys.argv[1]))
    for _name in PRELOADED:
        importlib.import_module(_name)
    sys.modules.pop("loraloop.__main__", None)  # it is run, not imported
    gc.collect()
    gc.freeze()  # or the end of each process goes through all that was imported
    _become(**_serve(_connection))
