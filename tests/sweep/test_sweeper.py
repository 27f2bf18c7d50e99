"""``hydra/sweeper=optuna`` in an application of its own, whose job is a formula."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.hydra_config import HydraConfig

from loraloop.errors import ConfigError, PrunedError, SweepError, TrainingError
from waiting import spawn

CONFIG = """
defaults:
  - _self_
  - shape: round
  - override hydra/sweeper: optuna
  - override hydra/sweeper/sampler: random
seed: 0
folder: state
allow_targets: []
x: 1
y: 1.0
name: plain
flag: false
items: [1, 2]
hydra:
  sweep: {dir: out}
  sweeper:
    study_name: study
    n_trials: 6
    folder: ${folder}
    allow_targets: ${allow_targets}
    sampler: {seed: "${seed}"}
"""


class App:
    """An application with a configuration in ``folder``; what its jobs were given is kept."""

    def __init__(self, folder: Path, empty: Path) -> None:
        self.folder = folder
        (folder / "state").mkdir()
        shutil.copy(empty, folder / "state" / "optuna.db")
        self.jobs: list[Any] = []
        for name in ("round", "square"):
            self.write(f"conf/shape/{name}.yaml", f"area: {len(name)}")
        self.write("conf/config.yaml", CONFIG)

    def write(self, name: str, text: str) -> None:
        """Write a file of the application."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    def __call__(self, *arguments: str, job: Any = None) -> str:
        """Sweep; what was printed."""

        def task(config: Any) -> Any:
            runtime = HydraConfig.get()
            self.jobs.append(SimpleNamespace(config=config, number=runtime.job.num, folder=runtime.runtime.output_dir))
            return (job or formula)(config)

        self.jobs = []
        main = hydra.main(version_base="1.3", config_path=str(self.folder / "conf"), config_name="config")(task)
        out = io.StringIO()
        with contextlib.chdir(self.folder), pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out):
            patch.setattr(sys, "argv", ["app", "-m", *arguments])
            patch.setenv("HYDRA_FULL_ERROR", "1")
            main()
        return out.getvalue()

    def refused(self, *arguments: str) -> str:
        """The one sentence with which a sweep is refused; no job began."""
        with pytest.raises(ConfigError) as caught:
            self(*arguments)
        assert self.jobs == []
        (problem,) = caught.value.problems
        return str(problem)

    @property
    def study(self) -> Any:
        """The study by Optuna's own reading."""
        import optuna

        return optuna.load_study(study_name="study", storage=f"sqlite:///{self.folder}/state/optuna.db")

    @property
    def results(self) -> Any:
        """What the file of results holds."""
        return yaml.safe_load((self.folder / "out" / "optimization_results.yaml").read_text())

    def values(self, key: str) -> list[Any]:
        """A key's value in each job."""
        return [job.config[key] for job in self.jobs]


def formula(config: Any) -> float:
    return float((config.x - 3) ** 2 + config.y)


@pytest.fixture
def app(tmp_path, empty) -> App:
    """An application that sweeps in an empty folder."""
    return App(tmp_path, empty)


def test_jobs_get_values_of_the_asked_types(app):
    """Each form of Hydra's sweep syntax reaches the jobs as a value of its type and range, and so does the study."""
    app("x=int(interval(4,64))", "y=tag(log,interval(1e-9,1e-4))", "flag=true,false", "name=choice('a b',c)",
        "+extra=range(0.5,1.5,step=0.5)", "hydra.sweeper.n_trials=3")  # fmt: skip
    for job, trial in zip(app.jobs, app.study.trials, strict=True):
        config = job.config
        assert isinstance(config.x, int)
        assert 4 <= config.x <= 64
        assert 1e-9 <= config.y <= 1e-4
        assert config.flag in (True, False)
        assert config.name in ("a b", "c")
        assert config.extra in (0.5, 1.0, 1.5)
        given = {"x": config.x, "y": config.y, "flag": config.flag, "name": config.name, "+extra": config.extra}
        assert trial.params == given


def test_choices_of_groups_and_lists(app):
    """A config group, and lists as values, are searched like any key."""
    app("shape=round,square", "items=[1],[2,3]", "hydra/sweeper/sampler=grid")
    seen = {(job.config.shape.area, tuple(job.config["items"])) for job in app.jobs}
    assert seen == {(5, (1,)), (5, (2, 3)), (6, (1,)), (6, (2, 3))}


def test_glob_is_a_choice_of_files(app):
    """``glob(*)`` searches every choice of a group."""
    app("shape=glob(*)", "hydra/sweeper/sampler=grid")
    assert {job.config.shape.area for job in app.jobs} == {5, 6}


def test_fixed_overrides_reach_every_trial(app):
    """What is not swept is passed on as it was written, deletions too, and is no parameter."""
    app("x=choice(1,2)", "y=0.5", "+added='two words'", "~flag")
    assert {(job.config.y, job.config.added) for job in app.jobs} == {(0.5, "two words")}
    assert all("flag" not in job.config for job in app.jobs)
    assert set(app.study.best_params) == {"x"}


def test_the_command_line_wins_over_params(app):
    """``hydra.sweeper.params`` holds a space in the same grammar; a value or space on the command line replaces it."""
    app.write("conf/params/wide.yaml", "# @package hydra.sweeper.params\nx: range(0,9)\ny: choice(1,2)\nname: fixed\n")
    app("+params=wide", "y=0.25", "x=choice(5,6)", "hydra.sweeper.n_trials=3")
    assert {job.config.y for job in app.jobs} == {0.25}
    assert set(app.values("x")) <= {5, 6}
    assert set(app.values("name")) == {"fixed"}


def test_what_is_varied_and_where_it_was_said_is_printed_before_the_first_trial(app):
    """A file's space, one merged into it by hydra.sweeper.params and the command line's are told apart in a table."""
    wide = "# @package hydra.sweeper.params\nx: range(0,9)\ny: interval(1,2)\nname: choice(a,b)\n"
    app.write("conf/sweeps/wide.yaml", wide)
    given = '++hydra.sweeper.params={y: "interval(3,4)", seed: "choice(7,8)"}'
    out = app("+sweeps=wide", given, "x=choice(5,6)", "name=plain", "hydra.sweeper.n_trials=1")
    table = out[out.index("varied\n") : out.index("trial 0")].splitlines()[3:]
    assert [" ".join(line.split()) for line in table] == [
        "x choice(5,6) command line, in place of range(0,9) of sweeps=wide",
        "y interval(3.0,4.0) hydra.sweeper.params",
        "seed choice(7,8) hydra.sweeper.params",
        "name plain, not varied command line, in place of choice(a,b) of sweeps=wide",
    ]


@pytest.mark.parametrize("sampler", ["tpe", "cmaes", "nsgaii", "qmc", "gp", "grid"])
def test_every_sampler_of_the_group_sweeps(app, sampler):
    """Each choice of ``hydra/sweeper/sampler`` carries a sweep out as its file configures it."""
    app(f"hydra/sweeper/sampler={sampler}", "x=range(0,5)", "y=range(0,1,step=0.5)", "hydra.sweeper.n_trials=2")
    assert app.results["best_value"] == min(trial.value for trial in app.study.trials)
    assert len(app.jobs) == 2


@pytest.mark.parametrize("pruner", ["hydra/sweeper/pruner=median", "hydra.sweeper.pruner=median"])
def test_a_pruner_is_chosen_by_group_or_by_name(app, pruner):
    """Both spellings give the same pruner, and a trial that it ends is PRUNED and no failure."""
    from loraloop.sweep.trial import VARIABLE, Trial

    def job(config):
        trial = Trial.decode(os.environ[VARIABLE])
        for step in (1, 2):
            trial.report(step, 9.0 if trial.number == 5 else 1.0)
        return 1.0

    shown = app("x=choice(1,2)", pruner, "hydra.sweeper.max_failure_rate=0", job=job)
    assert [trial.state.name for trial in app.study.trials] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert "trial 5     pruned    trial 5 pruned at step 1 by MedianPruner: loss 9" in shown


def test_hyperband_is_a_choice(app):
    """``hydra/sweeper/pruner=hyperband`` sweeps, also while nothing is known of a trial's length."""
    app("x=choice(1,2)", "hydra/sweeper/pruner=hyperband", "hydra.sweeper.n_trials=2")
    assert len(app.jobs) == 2


def test_several_directions(app):
    """Two directions give the solutions that none beats, and a job of one value only is a failure."""
    answers = iter([(1.0, 1.0), (0.5, 2.0), 7.0, (2.0, 3.0), [3.0, 0.5], (4.0, 4.0)])
    shown = app("x=interval(0,9)", "hydra.sweeper.direction=[minimize,minimize]", job=lambda config: next(answers))
    assert app.results["name"] == "optuna"
    assert sorted(solution["values"] for solution in app.results["solutions"]) == [[0.5, 2.0], [1.0, 1.0], [3.0, 0.5]]
    assert "trial 2     failed    the job returned 7.0 instead of 2 numbers" in shown


def test_the_results_are_hydra_optuna_sweepers(app):
    """The file of results has name, parameters and value of the best trial, as in that plugin."""
    app("x=range(2,3)", "y=choice(0.5,1.5)", "hydra/sweeper/sampler=grid", "hydra.sweeper.n_trials=50")
    assert app.results == {"name": "optuna", "best_params": {"x": 3, "y": 0.5}, "best_value": 0.5}
    assert len(app.jobs) == 2 * 2


def test_what_is_printed(app):
    """Study, how to go on with it, what is varied, a line for each trial with the best so far, the file of results."""
    shown = app("x=choice(3)", "y=choice(0.5)", "hydra.sweeper.n_trials=2").splitlines()
    assert shown[0] == (
        f"study    study in sqlite:///{app.folder}/state/optuna.db: 0 of 2 trials done "
        "(go on with it: hydra.sweeper.study_name=study)"
    )
    assert [line.split()[0] for line in shown[1:6:2]] == ["varied", "\u2500" * len(shown[3].strip()), "y"]
    assert shown[6] == "trial 0     complete  0.5  x=3 y=0.5  best 0.5 (trial 0)"
    assert shown[-1] == "results  out/optimization_results.yaml"
    assert len(shown) == 9


def test_trials_of_a_batch_have_folders_of_their_own(app):
    """Jobs carry their trial's number, also in batches and in a study that goes on."""
    app("x=range(0,9)", "hydra.sweeper.n_jobs=4")
    app("x=range(0,9)", "hydra.sweeper.n_jobs=4", "hydra.sweeper.n_trials=9")
    assert [job.number for job in app.jobs] == [6, 7, 8]
    assert [Path(job.folder).name for job in app.jobs] == ["6", "7", "8"]
    assert sorted(path.name for path in (app.folder / "out").iterdir() if path.is_dir()) == [str(n) for n in range(9)]


def test_failures_do_not_end_a_sweep(app):
    """NaN, an error of loraloop and a crash cost their trial alone; the crash is tried again, elsewhere."""
    answers = iter([float("nan"), TrainingError("no loss"), OSError("no memory"), 0.5, 1.0, 1.0, PrunedError("enough")])

    def job(config):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    app("x=interval(0,9)", "hydra.sweeper.max_failure_rate=0.5", job=job)
    states = [trial.state.name for trial in app.study.trials]
    assert states == ["FAIL", "FAIL", "FAIL", "COMPLETE", "COMPLETE", "COMPLETE", "PRUNED"]
    assert app.study.trials[3].params == app.study.trials[2].params
    assert len({job.folder for job in app.jobs}) == 7


def test_too_many_failures_end_a_sweep(app):
    """A sweep whose jobs all fail ends with one error that names the last failure."""

    def job(config):
        raise TrainingError("loss is not finite")

    with pytest.raises(SweepError, match=r"2 of 6 trials failed, .* the last, trial 1: loss is not finite"):
        app("x=interval(0,9)", job=job)


def test_an_interrupted_sweep_goes_on(app):
    """Ctrl+C in the middle of a trial: the same command runs that trial again and the rest, and no other."""

    def job(config):
        if len(app.jobs) == 3:
            raise KeyboardInterrupt
        return formula(config)

    with pytest.raises(KeyboardInterrupt):
        app("x=interval(0,9)", job=job)
    app("x=interval(0,9)")
    assert [job.number for job in app.jobs] == [3, 4, 5, 6]
    assert [trial.state.name for trial in app.study.trials] == ["COMPLETE"] * 2 + ["FAIL"] + ["COMPLETE"] * 4
    assert app.study.trials[3].params == app.study.trials[2].params


SCRIPT = """
import os, signal
import hydra

@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def main(config):
    from hydra.core.hydra_config import HydraConfig
    print("job", HydraConfig.get().job.num, config.x, config.y, flush=True)
    if str(HydraConfig.get().job.num) == os.environ.get("STOP"):
        print("waiting", flush=True)
        signal.pause()
    return (config.x - 3) ** 2 + config.y

main()
"""


def test_a_killed_sweep_continues(app):
    """A sweep of 8 trials, killed in trial 5, goes on with that trial and ends with those of a sweep in one piece."""
    app.write("app.py", SCRIPT)
    asked = ("x=int(interval(0,9))", "y=tag(log,interval(1e-3,1))", "hydra.sweeper.n_trials=8",
             "hydra/sweeper/sampler=tpe", "hydra.sweeper.sampler.n_startup_trials=2")  # fmt: skip
    command = [sys.executable, "app.py", "-m", *asked]
    environment = os.environ | {"HYDRA_FULL_ERROR": "1"}
    stopping = environment | {"STOP": "5"}
    killed = spawn(command, cwd=app.folder, env=stopping, stdout=subprocess.PIPE)
    with killed:
        assert "waiting\n" in iter(killed.stdout.readline, "")
        killed.send_signal(signal.SIGKILL)
    assert app.study.trials[5].state.name == "RUNNING"
    subprocess.run(command, cwd=app.folder, env=environment, check=True)
    trials = app.study.trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 5 + ["FAIL"] + ["COMPLETE"] * 3
    assert trials[6].params == trials[5].params
    app(*asked, "hydra.sweeper.study_name=whole")
    assert [trial.params for trial in trials if trial.value is not None] == [
        {"x": job.config.x, "y": job.config.y} for job in app.jobs
    ]
    folders = {path.name for path in (app.folder / "out").iterdir() if path.is_dir()}
    assert folders == {str(number) for number in range(9)}


def test_a_custom_search_space_suggests_more(app, monkeypatch):
    """A function of one's own sees configuration, parameters and fixed values, and may add keys."""
    app.write(
        "custom_space.py",
        """
        def suggest(config, trial):
            assert trial.user_attrs["name"] == "fixed"
            trial.suggest_float("y", trial.params["x"], trial.params["x"] + config.seed + 1)
            trial.suggest_categorical("+word", ["1", "two words"])
        """,
    )
    monkeypatch.syspath_prepend(app.folder)
    chosen = ("x=range(0,5)", "name=fixed", "hydra.sweeper.custom_search_space=custom_space.suggest",
              "hydra.sweeper.n_trials=3")  # fmt: skip
    assert "custom_space.suggest is outside" in app.refused(*chosen)
    app(*chosen, "allow_targets=[custom_space.]")
    assert all(job.config.x <= job.config.y <= job.config.x + 1 for job in app.jobs)
    assert set(app.values("word")) <= {"1", "two words"}
    with pytest.raises(ConfigError, match=r"custom_search_space suggests y, which the command line fixes"):
        app(*chosen, "y=1", "allow_targets=[custom_space.]", "hydra.sweeper.study_name=other")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["x=choice()"], "empty choice"),
        (["x=interval(64,4)"], "x=interval(64,4): the lower end comes first: 4 before 64"),
        (["x=tag(log,interval(0,1))"], "x=tag(log,interval(0,1)): a logarithmic scale begins above 0, not at 0"),
        (["+params=unknown"], "nmae=a: there is no key nmae (did you mean name?); the top level has "),
        (["+params=broken"], "x=choice(: "),
        (["+params=empty"], "x=choice(): "),
        (["shape=round,flat"], "shape=flat: there is no shape named 'flat'"),
        (["y=0.5"], "nothing is swept: add KEY=choice(A,B,...)"),
        (["x=interval(0,1)", "hydra/sweeper/sampler=grid"], "hydra/sweeper/sampler=grid: x=interval(0.0,1.0) has no "),
        (["x=1,2", "hydra.sweeper.pruner=medain"], "hydra/sweeper/pruner=medain: there is no hydra/sweeper/pruner "),
        (["x=1,2", "hydra.sweeper.direction=[minimize,maximize]", "hydra/sweeper/pruner=median"], "hydra.sweeper: a "),
        (["x=1,2", "hydra.sweeper.n_trials=0"], "hydra.sweeper.n_trials=0: input should be greater than or equal to 1"),
        (["x=1,2", "+hydra.sweeper.trials=0"], "hydra.sweeper.trials is not a key of hydra.sweeper (did you mean n_tr"),
        (["x=1,2", "hydra.sweeper.sampler._target_=os.system"], "hydra.sweeper.sampler._target_=os.system is outside "),
        (["x=1,2", "hydra.sweeper.storage=mysql://db/x"], "hydra.sweeper.storage=mysql://db/x: trials in other"),
        (["x=1,2", "hydra.sweeper.storage=postgresql://127.0.0.1:1/x"], "hydra.sweeper.storage=postgresql+psycopg://127"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence(app, arguments, sentence):
    """What cannot be swept is refused in one sentence before any trial begins."""
    app.write("conf/params/unknown.yaml", "# @package hydra.sweeper.params\nnmae: choice(a,b)\n")
    app.write("conf/params/broken.yaml", "# @package hydra.sweeper.params\nx: choice(\n")
    app.write("conf/params/empty.yaml", "# @package hydra.sweeper.params\nx: choice()\n")
    if arguments == ["x=choice()"]:
        with pytest.raises(Exception, match=sentence):
            app(*arguments)
    else:
        assert app.refused(*arguments).startswith(sentence)


def test_another_experiment_under_the_same_name(app):
    """A changed value, space or direction is refused with then and now; the folder and the study's name are none."""
    app("x=choice(1,2)", "y=0.5")
    assert "y: 0.5 -> 0.75" in app.refused("x=choice(1,2)", "y=0.75")
    assert "x: choice(1,2) -> choice(1,2,3)" in app.refused("x=choice(1,2,3)", "y=0.5")
    assert "begun with minimize" in app.refused("x=choice(1,2)", "y=0.5", "hydra.sweeper.direction=maximize")
    app("x=choice(1,2)", "y=0.5", "hydra.sweep.dir=elsewhere", "hydra/sweeper/sampler=tpe")
