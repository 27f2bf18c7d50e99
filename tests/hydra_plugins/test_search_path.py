"""Applications that are not loraloop: what they find under ``hydra/sweeper``, and what stays as Hydra has it."""

from __future__ import annotations

import contextlib
import io
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hydra
import pytest
import yaml
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig

from hydra_plugins.loraloop_sweeper import _sweepers
from loraloop.__main__ import CONF
from loraloop.python import own_logging

HEADER = (
    "defaults:\n  - override hydra/sweeper: optuna\nhydra:\n  sweeper:\n    sampler: {seed: 123}\n    storage: null\n"
)
BOWL = (
    HEADER
    + """
    direction: minimize
    study_name: bowl
    n_trials: 5
    n_jobs: 1
    max_failure_rate: 0.0
    params:
      x: range(-5.5, 5.5, step=0.5)
      y: choice(-5, 0, 5)
x: 1
y: 1
z: 100
"""
)
TWO = (
    HEADER
    + """
    direction: ['minimize', 'maximize']
    study_name: two
    n_trials: 5
    params: {x: 'range(0, 5, step=0.5)', y: 'range(0, 3, step=0.5)'}
x: 1
y: 1
"""
)
BOUND = (
    HEADER
    + """
    study_name: bound
    n_trials: 4
    params: {x: 'range(-5.5, 5.5, 0.5)', y: 'choice(-5, 0, 5)'}
    custom_search_space: near_x.configure
x: 1
y: 1
z: 1
distance: 0.5
"""
)
NEAR_X = """
def configure(cfg, trial):
    x = trial.params["x"]
    trial.suggest_float("z", x - cfg.distance, x + cfg.distance)
    trial.suggest_float("+w", 0.0, 1.0)
"""


def given(config: str, folder: Path, job: Callable[[Any], Any], *arguments: str) -> str:
    """Give a command of an application with this configuration; what it printed."""
    (folder / "conf").mkdir(exist_ok=True)
    (folder / "conf" / "config.yaml").write_text(textwrap.dedent(config))
    main = hydra.main(version_base="1.3", config_path=str(folder / "conf"), config_name="config")(job)
    with (
        own_logging(),
        contextlib.chdir(folder),
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
    ):
        patch.setattr(sys, "argv", ["app", *arguments])
        patch.setenv("HYDRA_FULL_ERROR", "1")
        main()
    return out.getvalue()


def results(folder: Path) -> Any:
    """What the newest sweep's file of results holds."""
    return yaml.safe_load(max(folder.glob("multirun/*/*/optimization_results.yaml")).read_text())


@pytest.fixture
def _stored() -> Iterator[None]:
    """Another plugin's sweeper of the same name in Hydra's store, as an installed hydra-optuna-sweeper leaves it."""
    node = {"_target_": "elsewhere.Sweeper", "sampler": None, "direction": None}
    ConfigStore.instance().store(group="hydra/sweeper", name="optuna", node=node, provider="optuna_sweeper")
    yield
    _sweepers._others.pop("optuna.yaml", None)
    ConfigStore.instance().repo["hydra"]["sweeper"].pop("optuna.yaml", None)


def test_one_objective(tmp_path):
    """A space in the configuration, a seed, a study without storage: the file of results holds the best of the jobs."""
    seen = []
    given(BOWL, tmp_path, lambda cfg: seen.append((cfg.x**2 + cfg.y**2, cfg.x, cfg.y)) or seen[-1][0], "--multirun")
    best, x, y = min(seen)
    assert len(seen) == 5
    assert results(tmp_path) == {"name": "optuna", "best_params": {"x": x, "y": y}, "best_value": best}


def test_a_study_without_storage_is_each_sweeps_own(tmp_path):
    """The same command twice sweeps twice, over what the command line says, from the same seed."""
    seen = []
    for _ in range(2):
        given(BOWL, tmp_path, lambda cfg: seen.append((cfg.x, cfg.y)) or 0.0, "-m", "x=interval(0,1)",
              "hydra.sweeper.n_trials=2", "hydra.sweep.dir=multirun/a/" + str(len(seen)))  # fmt: skip
    assert len(seen) == 4
    assert seen[:2] == seen[2:]


def test_two_objectives(tmp_path):
    """With two directions the file of results holds the solutions that no other beats in both."""
    seen = []
    given(TWO, tmp_path, lambda cfg: seen.append((4 * cfg.x**2, cfg.x - 2 * cfg.y)) or seen[-1], "--multirun")
    found = {tuple(solution["values"]) for solution in results(tmp_path)["solutions"]}
    assert found == {one for one in seen if not any(a <= one[0] and b >= one[1] and (a, b) != one for a, b in seen)}


def test_a_search_space_from_a_function(tmp_path, monkeypatch):
    """A function of the application's own, named in its configuration, suggests what depends on another parameter."""
    (tmp_path / "near_x.py").write_text(NEAR_X)
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    given(BOUND, tmp_path, lambda cfg: seen.append((cfg.x, cfg.z, cfg.w)) or cfg.x**2, "--multirun")
    assert len(seen) == 4
    assert all(abs(z - x) <= 0.5 and 0 <= w <= 1 for x, z, w in seen)


@pytest.mark.parametrize("sampler", ["cmaes", "grid"])
def test_samplers_are_choices(tmp_path, sampler):
    """The samplers' names are choices of ``hydra/sweeper/sampler`` in another application too."""
    seen = []
    given(BOWL, tmp_path, lambda cfg: seen.append(cfg.x) or cfg.x, "-m", f"hydra/sweeper/sampler={sampler}",
          "hydra.sweeper.n_trials=2", "~hydra.sweeper.params.y", "+hydra.sweeper.params.y=3")  # fmt: skip
    assert len(seen) == 2


def test_keys_that_loraloop_has_too_are_the_applications(tmp_path):
    """``stage``, ``objective`` and ``folder`` of another application mean nothing to the sweeper."""
    config = BOWL.replace("minimize", "maximize") + "stage: second\nobjective: loss\nfolder: [here]\nseed: {a: 1}\n"
    seen = []
    given(config, tmp_path, lambda cfg: seen.append(cfg.x) or cfg.x, "--multirun")
    assert results(tmp_path)["best_value"] == max(seen)


def test_a_plain_multirun_is_hydras(tmp_path):
    """Hydra's own grid runs there: a job's ``result.json`` is not taken for loraloop's, and no table is printed."""

    def job(cfg: Any) -> None:
        Path(HydraConfig.get().runtime.output_dir, "result.json").write_text("[]")

    lines = given("x: 1\n", tmp_path, job, "-m", "x=1,2").splitlines()
    assert [line.split("[HYDRA] ")[1] for line in lines] == ["Launching 2 jobs locally", "\t#0 : x=1", "\t#1 : x=2"]


@pytest.mark.usefixtures("_stored")
def test_another_plugin_of_that_name_keeps_it(tmp_path):
    """Where hydra-optuna-sweeper is installed, other applications find it, and loraloop's commands find their own."""
    targets = []

    def job(cfg: Any) -> None:
        targets.append(HydraConfig.get().sweeper._target_)

    def composed(config_path: str, *overrides: str) -> None:
        with hydra.initialize_config_dir(config_path, version_base="1.3"):
            config = hydra.compose("config", ["hydra/sweeper=optuna", *overrides], return_hydra_config=True)
            targets.append(config.hydra.sweeper._target_)

    given("x: 1\n", tmp_path, job, "hydra/sweeper=optuna")
    composed(str(CONF))
    composed(str(tmp_path / "conf"))
    ours = "hydra_plugins.loraloop_sweeper.optuna_sweeper.OptunaSweeper"
    assert targets == ["elsewhere.Sweeper", ours, "elsewhere.Sweeper"]
