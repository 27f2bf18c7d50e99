"""Launchers that hand jobs to another program, on trials of one PostgreSQL study."""

from __future__ import annotations

import importlib
import shutil
import subprocess
import textwrap
from dataclasses import replace

import pytest
from hydra.core.utils import JobStatus
from omegaconf import OmegaConf

from hydra_plugins.loraloop_launcher import _job
from hydra_plugins.loraloop_launcher.on_slurm import SlurmLauncher
from loraloop.errors import ConfigError

SMALL = ("source.runs=2", "trainer.max_steps=3", "evaluation.max_rows=8", "tracker=none")
ONCE = """
    import os
    from pathlib import Path

    from loraloop.core.part import part
    from loraloop.source.flips import Flips


    @part
    class KilledOnce(Flips):
        def collect(self, ocr):
            mark = Path(__file__).with_suffix(f".{self.seed}")
            if self.seed == 7 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), 9)
            return super().collect(ocr)
"""


def trials(url, name):
    """The study's trials by Optuna's own reading."""
    import optuna

    return optuna.load_study(study_name=name, storage=url.replace("postgresql://", "postgresql+psycopg://")).trials


def slurm():
    """Whether a cluster of Slurm takes jobs from this machine."""
    return bool(shutil.which("sinfo")) and subprocess.run(["sinfo"], capture_output=True).returncode == 0


@pytest.mark.parametrize(
    "launcher",
    [
        ("joblib",),
        ("slurm", "hydra.launcher.cluster=local"),
        pytest.param(("slurm", "hydra.launcher.cluster=slurm"), marks=pytest.mark.skipif("not slurm()")),
    ],
    ids=lambda words: words[-1].rpartition(".")[2],
)
def test_a_killed_workers_trial_is_tried_again(desk, postgres, launcher):
    """Of two trials in other processes one is killed: it alone runs again, and each has one result in the study."""
    pytest.importorskip({"slurm": "submitit"}.get(launcher[0], launcher[0]))
    (desk.folder / "once.py").write_text(textwrap.dedent(ONCE))
    seen = desk.process(
        "-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "source._target_=once.KilledOnce",
        "source.seed=choice(7,8)", "allow_targets=[once.]", *SMALL, f"hydra/launcher={launcher[0]}", *launcher[1:],
        f"hydra.sweeper.study_name='{launcher[-1]}'", f"hydra.sweeper.storage='{postgres}'",
        "hydra.sweeper.max_failure_rate=1", PYTHONPATH=str(desk.folder),
    )  # fmt: skip
    assert seen.code == 0, seen
    found = trials(postgres, launcher[-1])
    complete = [trial.params["source.seed"] for trial in found if trial.state.name == "COMPLETE"]
    assert sorted(complete) == [7, 8], seen
    assert "ended without a result" in seen.out
    failed = [trial for trial in found if trial.state.name == "FAIL"]
    assert len(found) == 2 + len(failed)
    assert len(failed) == 1 or launcher[0] == "joblib"
    attempts = {trial.user_attrs.get("attempt", 1) for trial in found if trial.state.name == "COMPLETE"}
    assert attempts == ({1} if launcher[0] == "joblib" else {1, 2})  # in joblib nobody knows whose fault it was
    folders = {trial.user_attrs["folder"] for trial in found if trial.state.name == "COMPLETE"}
    assert len(folders) == 2
    assert all((desk.folder / folder / "adapter").is_dir() for folder in folders)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("hydra/launcher=slurm",), "is a file of this machine, and the launcher's jobs run on others"),
        (("hydra/launcher=ray", "hydra.launcher.address=auto"), "is a file of this machine"),
    ],
)
def test_a_file_is_no_study_for_other_machines(office, words, sentence):
    """A study in SQLite with a launcher of other machines is refused before the first trial, with the way out."""
    pytest.importorskip("submitit")
    seen = office.attempt("-m", "sweeps=rank_alpha_lr", *words)
    assert seen.code != 0
    assert sentence in seen.err
    assert "hydra.sweeper.storage=postgresql://" in seen.err


@pytest.mark.parametrize(
    ("launcher", "words"), [("slurm", ()), ("ray", ("hydra.launcher.address=auto",))], ids=["slurm", "ray"]
)
def test_a_file_is_no_tracker_of_other_machines(office, launcher, words):
    """Runs in MLflow's SQLite with a launcher of other machines are refused before a job is handed over."""
    pytest.importorskip({"slurm": "submitit"}.get(launcher, launcher))
    seen = office.attempt("-m", "lora=r8,r16", f"hydra/launcher={launcher}", *words)
    assert seen.code != 0
    assert "tracker.uri=null is a SQLite file in mlruns of this machine" in seen.err
    assert "tracker.uri=http://HOST:PORT" in seen.err


@pytest.mark.parametrize(("launcher", "module"), [("slurm", "submitit"), ("ray", "ray"), ("joblib", "joblib")])
def test_a_missing_package_has_its_line(office, monkeypatch, launcher, module):
    """A launcher whose package is not installed is refused with the line that installs it."""
    real = importlib.import_module

    def absent(name: str, *more: str) -> object:
        if name == module:
            raise ModuleNotFoundError(name=module)
        return real(name, *more)

    monkeypatch.setattr(importlib, "import_module", absent)
    seen = office.attempt("-m", "lora=r8,r16", f"hydra/launcher={launcher}")
    assert f"pip install 'loraloop[{launcher}]'" in seen.err


def test_a_machine_without_slurm_is_refused(tmp_path, monkeypatch):
    """Where no Slurm can be asked, nothing is submitted, and the sentence names the way to run on this machine."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"submits no jobs to Slurm .* hydra\.launcher\.cluster=local"):
        SlurmLauncher(1, "slurm", 10, {}).start([])


def test_another_version_or_folder_is_refused(tmp_path):
    """A machine with another loraloop, or without the sweep's folder, carries nothing out and says which it has."""
    given = _job.task(OmegaConf.create(), 1)
    status, error = _job.carry_out(replace(given, loraloop="0.0.1"))
    assert (status, type(error)) == (JobStatus.FAILED, ConfigError)
    assert "the sweep runs on 0.0.1" in str(error)
    _, error = _job.carry_out(replace(given, folder=str(tmp_path / "absent")))
    assert f"has no folder {tmp_path}/absent" in str(error)
