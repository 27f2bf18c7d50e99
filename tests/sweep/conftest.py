"""Studies without a command line, and a PostgreSQL server of the tests' own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from loraloop.sweep import storage
from loraloop.sweep.opening import open_study
from loraloop.sweep.space import Choice, Numbers
from loraloop.sweep.study import Sweep

SPACE = {"x": Numbers(-4.0, 4.0), "k": Numbers(1, 9, step=2, integer=True), "m": Choice(("a", "b"), ("a", "b"))}
EARLY = {
    "TPESampler": {"n_startup_trials": 2},
    "GPSampler": {"n_startup_trials": 3},
    "NSGAIISampler": {"population_size": 3},
    "QMCSampler": {"scramble": True},
}
"""Settings with which a sampler looks back already in a study of six trials."""


class Bench:
    """A folder with one study."""

    def __init__(self, folder: Path, empty: Path) -> None:
        self.folder, self.empty = folder, empty
        folder.mkdir(exist_ok=True)
        shutil.copy(empty, folder / "optuna.db")

    def settings(self, name: str = "RandomSampler", seed: int = 3, **changes: Any) -> Sweep:
        """A sweep of six trials whose database lies in the folder."""
        values = {
            "sampler": {"_target_": f"optuna.samplers.{name}", "seed": seed, **EARLY.get(name, {})},
            "pruner": {"_target_": "optuna.pruners.NopPruner"},
            "folder": str(self.folder),
            "study_name": "study",
            "n_trials": 6,
        }
        return Sweep(**values | changes)

    def carry_out(self, sweep: Sweep, space: Any = SPACE, answer: Any = None, most: int = 1000) -> list[Any]:
        """Ask for at most ``most`` trials and tell the study ``answer(params)``, a value or an exception."""
        ended: list[Any] = []
        with open_study(sweep, "unnamed", space, {}) as session:
            while (size := session.batch_size(sweep.n_jobs)) and len(ended) < most:
                for proposal in session.ask(size):
                    ended.append(session.tell(proposal, (answer or self.value)(proposal.params)))
                    session.check_budget(ended[-1])
        return ended

    @property
    def trials(self) -> list[Any]:
        """Every trial of the study, by Optuna's own reading of the file."""
        import optuna

        return optuna.load_study(study_name="study", storage=f"sqlite:///{self.folder}/optuna.db").trials

    def __truediv__(self, name: str) -> Bench:
        """Another study in a folder below."""
        return Bench(self.folder / name, self.empty)

    @staticmethod
    def value(params: Any) -> float:
        """What a job at ``params`` returns."""
        return float((params.get("x", 0.0) - 1) ** 2 + params.get("k", 0) + (params.get("m") == "b"))


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database without studies; Optuna takes a while to make one."""
    folder = tmp_path_factory.mktemp("empty")
    storage.connect(storage.address(None, str(folder))).engine.dispose()
    return folder / "optuna.db"


@pytest.fixture
def bench(tmp_path: Path, empty: Path) -> Bench:
    """A folder for a study."""
    return Bench(tmp_path / "bench", empty)
