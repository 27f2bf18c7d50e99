"""MLflow's own pages in a real browser, on the database that a multirun left."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "screenshot.py"


@pytest.fixture(scope="module")
def screenshot():
    """The script that takes the README's picture, which opens the same page."""
    spec = importlib.util.spec_from_file_location("screenshot", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_three_ranks_stand_side_by_side_in_mlflow(three_runs, screenshot):
    """MLflow's comparison page shows the rank, alpha, learning rate and final scores of all three runs."""
    runs = three_runs.runs()
    with screenshot.ui(three_runs.folder) as site, screenshot.browser() as page:
        screenshot.compare(page, site, runs)
        names = page.js("document.body.innerText")
        assert "Comparing 3 Runs from 1 Experiment" in names
        assert all(f"flips-tiny-r{rank}" in names for rank in (8, 16, 64))
        assert screenshot.parameter(page, "lora.r") == ["8", "16", "64"]
        assert screenshot.parameter(page, "lora.alpha") == ["16.0", "32.0", "128.0"]
        assert screenshot.parameter(page, "trainer.learning_rate") == ["0.005"] * 3
        for name in ("final/exact_match", "final/loss"):
            shown = [float(value) for value in screenshot.metric(page, name)]
            assert shown == [round(run.data.metrics[name], 3) for run in runs]


def test_the_trials_of_a_sweep_stand_side_by_side_in_mlflow(swept, screenshot):
    """MLflow's comparison of a sweep's trials shows rank, alpha, learning rate and loss, in tables and in its plot."""
    runs = [run for run in swept.runs() if "trial" in run.data.tags]
    names = ("lora.r", "lora.alpha", "trainer.learning_rate")
    with screenshot.ui(swept.folder) as site, screenshot.browser(2400, 1000) as page:
        screenshot.compare(page, site, runs)
        assert "Comparing 6 Runs from 1 Experiment" in page.js("document.body.innerText")
        for name in names:
            assert screenshot.parameter(page, name) == [run.data.params[name] for run in runs]
        shown = [float(value) for value in screenshot.metric(page, "eval/loss")]
        assert shown == [round(run.data.metrics["eval/loss"], 3) for run in runs]
        screenshot.unchoose(page, 1)
        screenshot.choose(page, 0, "trainer.learning_rate")
        screenshot.choose(page, 1, "eval/loss")
        assert all(name in screenshot.axes(page) for name in (*names, "eval/loss"))
