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
import itertools
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
from unittest import mock

import waiting
from loraloop.tracker.mlflow import SETTINGS

PRELOADED = (
    "hydra_plugins.loraloop_launcher._preload", "mlflow.store.tracking.sqlalchemy_store", "hydra.main",
    "loraloop.cli.prepare", "matplotlib.backends.backend_agg", "matplotlib.figure", "optuna", "sacrebleu",
)  # fmt: skip
READ_AT_IMPORT = ("CUDA", "HF_", "MKL_", "OMP_", "PYTHON", "TRANSFORMERS_")
"""Variables whose change the server would not notice: a command with one is started cold."""
HARMLESS = {"PYTHONPATH", "HF_XET_HIGH_PERFORMANCE", "PYTHONBREAKPOINT"}
"""Of these, one that a forked process heeds, and what lm-eval and Ray leave in the environment when they are used."""
DEFAULTS = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    **SETTINGS,
}
"""What the package sets before it imports a library that reads it."""
LAUNCH = f"""
import sys
sys.path.append({str(Path(__file__).parent)!r})
import warm
warm.serve_own()
from accelerate.commands import launch
from torch.distributed.elastic.multiprocessing.subprocess_handler import SubprocessHandler

def popen(handler, command, environment):
    streams = {{"stdout": handler._stdout, "stderr": handler._stderr}}
    return warm.Warm([word for word in command if word != "-u"], env=environment, start_new_session=True, **streams)

SubprocessHandler._popen = popen
launch.main()
"""
"""``accelerate launch``, but that the processes that it starts have imported the libraries."""
SERVE = """
import os, runpy, sys
import mlflow.server
from mlflow.cli import cli

def here(command, *, extra_env, **_):
    os.environ.update(extra_env)
    for name in [name for name in sys.modules if name.startswith("mlflow.server")]:
        del sys.modules[name]  # it reads the environment when it is imported
    sys.argv = command[2:]
    runpy.run_module("uvicorn", run_name="__main__", alter_sys=True)

mlflow.server._exec_cmd = here
cli()
"""
"""``mlflow``, but that its server is the process itself, rather than one that imports all again."""
FORKED = {"accelerate.commands.launch": LAUNCH, "mlflow": SERVE}
PR_SET_CHILD_SUBREAPER = 36
MOST = 1 << 17
_asking = threading.Lock()


class Warm(subprocess.Popen[str]):
    """``subprocess.Popen`` of ``[sys.executable, "-m" or "-c", ...]``, forked unless its environment forbids it."""

    def _execute_child(self, args: Any, *rest: Any) -> None:
        cwd, env, given, leads = rest[4], rest[5], rest[9:15], rest[20]
        asked = {
            "arguments": list(args[1:]), "folder": str(cwd or Path.cwd()), "environment": dict(env or os.environ),
            "leads": leads,
        }  # fmt: skip
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


def popen(command: Sequence[Any], **settings: Any) -> subprocess.Popen[Any]:
    """``subprocess.Popen``, forked where it is MLflow's server or a training in several processes."""
    if list(command[:2]) == [sys.executable, "-m"] and command[2] in FORKED:
        return Warm([sys.executable, "-c", FORKED[command[2]], *command[3:]], **settings)
    return subprocess.Popen(command, **settings)


@contextlib.contextmanager
def forking(module: types.ModuleType) -> Iterator[None]:
    """Let what ``module`` starts be forked, as above."""
    with mock.patch.object(module, "subprocess", types.SimpleNamespace(**vars(subprocess) | {"Popen": popen})):
        yield


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
    return any(key.startswith(READ_AT_IMPORT) for key in changed - DEFAULTS.keys() - HARMLESS)


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


def serve_own() -> None:
    """Give this process, which was forked, a server of its own: for what it starts later, when it has threads."""
    global _server
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        ours.close()
        _become(**_serve(theirs))
        sys.exit()
    theirs.close()
    _server = lambda: ours  # noqa: E731


def _become(arguments: Sequence[str], folder: str, environment: dict[str, str], leads: bool) -> None:
    """Be the Python that was asked for."""
    if leads:
        os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    own = [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path and path not in sys.path]
    how, what, *arguments = arguments
    sys.path[:1] = [folder if how == "-m" else "", *own]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if "hydra/launcher=isolated" in arguments:
        _start_forkserver()
    if how == "-m":
        sys.argv = [what, *arguments]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
        return
    sys.argv = ["-c", *arguments]
    sys.modules["__main__"] = main = types.ModuleType("__main__")
    exec(compile(what, "<string>", "exec"), main.__dict__)  # noqa: S102  what a test asked for


def _start_forkserver() -> None:
    """Start the server that ``multiprocessing`` forks processes from: by a fork, not as a fresh Python."""
    from multiprocessing import forkserver, resource_tracker, util

    def fork(_: str, arguments: Sequence[str], kept: Sequence[int]) -> int:
        if child := os.fork():
            return child
        forkserver._forkserver.__init__()  # type: ignore[misc]  # its lock is held
        for low, high in itertools.pairwise([2, *sorted(kept), os.sysconf("SC_OPEN_MAX")]):
            os.closerange(low + 1, high)
        try:
            exec(arguments[-1], {})  # noqa: S102  multiprocessing's own command
        finally:
            os._exit(0)

    resource_tracker.ensure_running()
    with mock.patch.object(util, "spawnv_passfds", fork):
        forkserver.ensure_running()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the tests
    _connection = socket.socket(fileno=int(sys.argv[1]))
    for _name in PRELOADED:
        importlib.import_module(_name)
    sys.modules.pop("loraloop.__main__", None)  # it is run, not imported
    gc.collect()
    gc.freeze()  # or the end of each process goes through all that was imported
    _become(**_serve(_connection))
