"""No tracking. What it shares with the other trackers is in test_tracker_contract.py."""

from __future__ import annotations

import subprocess
import sys

import pytest

from loraloop.errors import TrackingError
from loraloop.tracker.none import NoTracker


class TestNoTracker:
    """A tracker that keeps nothing."""

    def test_writes_nothing(self, tmp_path, monkeypatch):
        """A run leaves no file in the working directory, and has neither id nor link."""
        monkeypatch.chdir(tmp_path)
        with NoTracker().start("run") as run:
            run.params({"lora.r": 8})
            run.metrics({"train/loss": 1.0}, step=1)
            run.text("hello", "note.txt")
            assert (run.id, run.link) == (None, None)
        assert list(tmp_path.iterdir()) == []

    def test_an_earlier_run_cannot_be_read(self):
        """Reading says that nothing is tracked and which tracker to take."""
        for read in (NoTracker().read, NoTracker().artifacts):
            with pytest.raises(TrackingError, match="tracker=none tracks nothing: use tracker=mlflow"):
                read("run")


def test_importing_trackers_loads_no_mlflow():
    """Importing every module of the package and building the parts loads neither MLflow nor what it brings."""
    script = (
        "import sys, pkgutil, importlib, loraloop.tracker as package\n"
        "for module in pkgutil.iter_modules(package.__path__, 'loraloop.tracker.'):\n"
        "    importlib.import_module(module.name)\n"
        "package.mlflow.Mlflow(); package.none.NoTracker()\n"
        "print(sorted({'mlflow', 'torch', 'sqlalchemy', 'alembic', 'pandas', 'matplotlib'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
