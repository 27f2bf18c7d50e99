"""The loop's kill test: a process is killed (SIGKILL) before and after every effect of a cycle, and run again.

``python tests/loop/kills.py`` prints the table; ``test_kills.py`` holds what it says with ``--steps``: there a single
cycle is stopped (SIGSTOP) at one point after the other. What its folder holds while it stands still is what SIGKILL
would leave; the copies go on when the cycle has ended. Two points are killed as well, and come to the same end.

Everything is real: training, SQLite, registry, ledger, MLflow. Processes are forked from this one, which has imported
all and run nothing, so that one costs seconds less.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import contextlib
import gc
import hashlib
import importlib
import json
import logging
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SMALL = (
    "registry.name=loraloop-ocr", "source.runs=4", "trainer.max_steps=1", "tracker.system_metrics=false",
    "evaluation.max_new_tokens=4", "evaluation.cache=cache",
)  # fmt: skip
TICK = (
    "stage=tick", "policy=seed", *SMALL, "trainer.max_steps=4", "trainer.save_steps=2", "policy.mix.rows=40",
    "policy.golden_rows=20", "policy.max_forgetting=1", "gate.metric=loss", "gate.margin=0",
)  # fmt: skip
CYCLE = "cycle"
"""The folder of every cycle: the paths in its files lead to itself, in a copy too."""
FOREVER = 20
PATIENCE = 600


@dataclass(frozen=True)
class End:
    """What is left when a cycle that was killed once has come to its end."""

    killed: str
    state: str
    cycles: int
    versions: int
    champion: int
    promotions: int
    rollouts: int
    entries: int
    doubles: int
    running: int
    unpublished: int
    weights: str


def effects() -> list[tuple[Any, str, Callable[..., str]]]:
    """What leaves a trace outside of the process, and how each is called in the table."""
    from mlflow import MlflowClient

    from loraloop.core.transitions import find
    from loraloop.loop.store import LoopStore
    from loraloop.registry.ledger import Ledger
    from loraloop.registry.mlflow import MlflowRegistry
    from loraloop.trainer import checkpoints
    from loraloop.trainer.sft import Sft
    from loraloop.workflows.retraining.training import Retraining
    from loraloop.workflows.retraining.training_set import TrainingSetBuilder

    def published(store: Any, entry: Any, where: str, **_: Any) -> str:
        return f"{entry.event.name} published to {where}"

    def step(store: Any, cycle: Any, *events: Any, **_: Any) -> str:
        event = events[-1] if events else None
        row = find(cycle.state, event and event.name, alias=bool(event and event.alias))
        return f"commit: {row.target}"

    return [
        (LoopStore, "begin", lambda *_, **__: "commit: triggered"),
        (LoopStore, "advance", step),
        (LoopStore, "roll_out", lambda *_, **__: "commit: canary"),
        (LoopStore, "note", lambda _, cycle, **changes: f"commit: {', '.join(changes)} of {cycle.state}"),
        (LoopStore, "mark_published", published),
        (LoopStore, "keep_verdict", lambda *_: "commit: verdict"),
        (MlflowRegistry, "register", lambda *_: "registry: register"),
        (MlflowRegistry, "promote", lambda _, number, alias, *__: f"registry: promote {alias}"),
        (MlflowClient, "set_registered_model_alias", lambda _, __, alias, ___: f"MLflow: alias {alias}"),
        (MlflowClient, "create_model_version", lambda *_, **__: "MLflow: create version"),
        (MlflowClient, "create_run", lambda *_, run_name, **__: f"MLflow: create run {run_name.split('-')[0]}"),
        (MlflowClient, "set_terminated", lambda *_, **__: "MLflow: end run"),
        (Ledger, "append", lambda _, event, *__, **___: f"ledger: {event}"),
        (TrainingSetBuilder, "_golden", lambda *_: "golden set"),
        (TrainingSetBuilder, "prepare", lambda *_: "corrective set"),
        (checkpoints, "write_manifest", lambda folder, _: folder.name),
        (Sft, "train", lambda *_: "training"),
        (Retraining, "train", lambda *_: "training and scores"),
    ]


class Points:
    """Counts the points before and after every effect; ends the process at one of them, or stops it at several."""

    def __init__(self, kill_at: int | None, stop_at: re.Pattern[str] | None) -> None:
        self.kill_at, self.stop_at, self.seen = kill_at, stop_at, list[str]()
        for owner, name, label in effects():
            setattr(owner, name, self._around(getattr(owner, name), label))

    def _around(self, effect: Callable[..., Any], label: Callable[..., str]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            called = label(*args, **kwargs)
            self._reach(f"before {called}")
            result = effect(*args, **kwargs)
            self._reach(f"after {called}")
            return result

        return wrapped

    def _reach(self, point: str) -> None:
        if len(self.seen) == self.kill_at:
            Path("killed").write_text(point)
            os.kill(os.getpid(), signal.SIGKILL)
        self.seen.append(point)
        if self.stop_at and self.stop_at.match(point) and len(self.seen) - 1 in apart(self.seen):
            Path("killed").write_text(point)
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            Path("killed").unlink()


def config(*overrides: str) -> dict[str, Any]:
    """The composed configuration, in plain containers."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return OmegaConf.to_container(compose("config", list(overrides)), resolve=True)  # type: ignore[return-value]


def run(stage: dict[str, Any]) -> None:
    """Run a stage in the working directory."""
    from loraloop.cli import prepare

    prepare.prepare(stage, Path("jobs") / str(time.time_ns()), {}, ())()


def sessions(store: Any, count: int, answered: str, stars: int, rollout: str | None = None) -> None:
    """Answered and rated sessions, with what should have been answered."""
    from loraloop.records import Rating, Session
    from loraloop.source.flips import Flips

    examples = Flips(runs=1, per_run=count, seed=7).collect(None).examples
    for number, example in enumerate(examples):
        name = f"{answered}-{rollout or 'before'}-{number}"
        prompt = [{"role": "user", "content": f"{example.instruction}\n{example.input}"}]
        store.keep(
            Session(
                id=name, time=datetime.now(UTC).isoformat(timespec="milliseconds"), asked="agent:validator",
                answered=answered, role="validator", prompt=prompt, answer="?", status="ok", duration=1.0,
                first_token=0.1, prompt_tokens=9, completion_tokens=9, conversation=name, client=f"c{number}",
                rollout=rollout,
            )
        )  # fmt: skip
        store.rate(name, Rating(stars=stars, comment="", issues=(), correction=example.output))


def world(experiment: dict[str, Any], promote: dict[str, Any]) -> None:
    """A weak champion, and sessions that it answered badly."""
    from loraloop.feedback.settings import Feedback

    run(experiment)
    run(promote)
    Path("modules.json").write_text(json.dumps(sorted(sys.modules)))
    store = Feedback(review="none").open()
    sessions(store, 16, "ocr@1", 2)
    store.close()


def drive(tick: dict[str, Any]) -> None:
    """Ticks until the cycle is over, and one more; meanwhile people are content with the canary."""
    from loraloop.feedback.settings import Feedback
    from loraloop.loop.store import LoopStore

    store = Feedback(review="none").open()
    loop = LoopStore(store.database)
    for _ in range(FOREVER):
        run(tick)
        for rollout in loop.rollouts():
            if not store.outcomes(rollout=rollout.id):
                sessions(store, 12, f"ocr@{rollout.canary}", 5, rollout.id)
        if loop.cycles("validator") and loop.open("validator") is None:
            run(tick)
            return
    raise SystemExit("the cycle came to no end")


def fork(
    folder: Path, work: Callable[[], None], kill_at: int | None = None, stop_at: re.Pattern[str] | None = None
) -> int:
    """Do ``work`` in a process of its own in ``folder``, which ends or stops at points or lives; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(folder)
        with Path("log").open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            logging.basicConfig(stream=log, level=logging.WARNING, force=True)
            points = Points(kill_at, stop_at)
            work()
            if points.seen:
                Path("points.json").write_text(json.dumps(points.seen))
        code = 0
    except BaseException:
        import traceback

        with Path("log").open("a") as log:
            log.write(traceback.format_exc())
    os._exit(code)


def forked(folder: Path, work: Callable[[], None], kill_at: int | None = None) -> int:
    """The same, waited for; its exit status."""
    return os.waitpid(fork(folder, work, kill_at), 0)[1]


def warm(modules: Path) -> None:
    """Import what a process turned out to need, once for all that follow."""
    for name in json.loads(modules.read_text()):
        with contextlib.suppress(Exception):
            importlib.import_module(name)


def end(folder: Path, killed: str) -> End:
    """Look at what is left, in the files alone."""
    from loraloop.feedback.settings import Feedback
    from loraloop.loop.store import LoopStore
    from loraloop.registry.ledger import Ledger

    store = Feedback(folder=folder / "mlruns").open()
    loop = LoopStore(store.database)
    cycles, unpublished = loop.cycles("validator"), loop.unpublished("loraloop-ocr")
    store.close()
    ledger = Ledger(folder / "mlruns" / "loraloop-ocr.ledger.jsonl")
    ledger.verify()
    entries = ledger.entries()
    entered = Counter(entry.numbers["decision"] for entry in entries if "decision" in entry.numbers)
    with contextlib.closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as mlflow:
        sources = dict(mlflow.execute("SELECT version, source FROM model_versions").fetchall())
        ((champion,),) = mlflow.execute("SELECT version FROM registered_model_aliases WHERE alias = 'champion'")
        ((running,),) = mlflow.execute("SELECT count(*) FROM runs WHERE status = 'RUNNING'")
    kept = folder / "mlruns" / "artifacts" / "adapters" / "loraloop-ocr" / Path(sources[champion]).name
    return End(
        killed=killed,
        state=cycles[-1].state,
        cycles=len(cycles),
        versions=len(sources),
        champion=champion,
        promotions=sum(entry.event == "promote" and "decision" in entry.numbers for entry in entries),
        rollouts=sum(entry.event == "rollout" for entry in entries),
        entries=len(entered),
        doubles=sum(count - 1 for count in entered.values()),
        running=running,
        unpublished=len(unpublished),
        weights=hashlib.sha256((kept / "adapter_model.safetensors").read_bytes()).hexdigest()[:8],
    )


@dataclass(frozen=True)
class Trials:
    """The worlds in which a cycle is killed."""

    home: Path
    tick: dict[str, Any]

    @classmethod
    def made(cls, home: Path) -> Trials:
        """Make the world that all begin with."""
        experiment = config(*SMALL)
        promote = config("stage=promote", "registry.name=loraloop-ocr", "version=1")
        (home / "world").mkdir()
        if forked(home / "world", lambda: world(experiment, promote)):
            raise SystemExit((home / "world" / "log").read_text())
        warm(home / "world" / "modules.json")
        gc.collect()
        gc.freeze()  # or each process that is forked goes through all that was imported
        return cls(home, config(*TICK))

    def undisturbed(self, stop_at: re.Pattern[str] | None = None) -> tuple[End, list[str], list[Path]]:
        """The end of a cycle, every point that it came by, and what a kill would have left where it was stopped."""
        copies: list[Path] = []
        folder = self._copy(CYCLE)
        child = fork(folder, lambda: drive(self.tick), stop_at=stop_at)
        while os.WIFSTOPPED(status := os.waitpid(child, os.WUNTRACED)[1]):
            copies.append(Path(shutil.copytree(folder, self.home / f"stopped-{len(copies)}")))
            os.kill(child, signal.SIGCONT)
        if status:
            raise SystemExit((folder / "log").read_text())
        points = json.loads((folder / "points.json").read_text())
        found = end(folder, "never")
        shutil.rmtree(folder)
        return found, points, copies

    def killed(self, kill_at: int) -> End:
        """The end of a cycle that is killed at a point and then goes on."""
        folder = self._copy(CYCLE)
        forked(folder, lambda: drive(self.tick), kill_at)
        return self._gone_on(folder)

    def stopped(self, copy: Path) -> End:
        """The end of a cycle that goes on from what it had left at a point."""
        return self._gone_on(copy.rename(self.home / CYCLE))

    def _gone_on(self, folder: Path) -> End:
        if forked(folder, lambda: drive(self.tick)):
            raise SystemExit((folder / "log").read_text())
        found = end(folder, (folder / "killed").read_text())
        shutil.rmtree(folder)
        return found

    def at_once(self, count: int) -> tuple[int, End]:
        """Several ticks at once: how many left because one was at work, and the end of the cycle after them."""
        folder = self._copy("at-once")

        def alone() -> None:
            """The one that begins the cycle goes on when the others have left."""
            from loraloop.loop.store import LoopStore

            begin = LoopStore.begin

            def waiting(*args: Any, **kwargs: Any) -> Any:
                made = begin(*args, **kwargs)
                until = time.monotonic() + PATIENCE
                while len(list(Path().glob("left-*"))) < count - 1 and time.monotonic() < until:
                    time.sleep(0.05)
                return made

            LoopStore.begin = waiting  # type: ignore[method-assign]
            run(self.tick)
            Path(f"left-{os.getpid()}").touch()

        children = [fork(folder, alone) for _ in range(count)]
        ended = [os.waitpid(child, 0)[1] for child in children]
        if any(ended):
            raise SystemExit((folder / "log").read_text())
        left = (folder / "log").read_text().count("another tick works on this role: nothing done")
        if forked(folder, lambda: drive(self.tick)):
            raise SystemExit((folder / "log").read_text())
        return left, end(folder, "at once")

    def _copy(self, name: str) -> Path:
        ignored = shutil.ignore_patterns("log", "points.json", "jobs", "modules.json")
        shutil.copytree(self.home / "world", self.home / name, ignore=ignored)
        return self.home / name


def apart(points: list[str]) -> list[int]:
    """All but the second of two points between which nothing happens."""
    return [
        at
        for at, point in enumerate(points)
        if not (point.startswith("before") and at and points[at - 1].startswith("after"))
    ]


STEPS = re.compile(
    "after (commit: (?!verdict|run|attempts)|corrective set|MLflow: (alias champion|create version)|training$"
    "|ledger: promote)|before checkpoint-2"
)
"""Every transition, and between them what leaves something outside the database: what the tests take of all points."""
KILLED = re.compile("before checkpoint-2|after commit: promoting")
"""Of these, the points where the tests kill as well: in a training, and between the database and the registry."""


def main() -> None:
    """Print a row per point."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--steps", action="store_true", help="transitions, registry and training alone")
    asked.add_argument("--json", action="store_true")
    given = asked.parse_args()
    importlib.import_module("hydra_plugins.loraloop_launcher._preload")
    with tempfile.TemporaryDirectory() as scratch:
        trials = Trials.made(Path(scratch))
        found, points, copies = trials.undisturbed(STEPS if given.steps else None)
        show(found, given.json, first=True)
        for copy in copies:
            show(trials.stopped(copy), given.json)
        for at in apart(points):
            if not given.steps or KILLED.match(points[at]):
                show(trials.killed(at), given.json)
        left, last = trials.at_once(3)
        show(replace(last, killed=f"never; 3 ticks at once, of which {left} left"), given.json)


def show(found: End, as_json: bool, *, first: bool = False) -> None:
    """Print one row."""
    row = asdict(found)
    if as_json:
        print(json.dumps(row), flush=True)
        return
    if first:
        print("| " + " | ".join(row) + " |\n|" + " --- |" * len(row))
    print("| " + " | ".join(map(str, row.values())) + " |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
