"""MLflow's own pages in a real browser, on the database that a multirun left."""

from __future__ import annotations

import pytest

import warm
from loraloop.core.console import value_with_error
from scripts import script


@pytest.fixture(scope="module")
def screenshot():
    """The script that takes the README's picture, which opens the same page."""
    with script("screenshot") as module, warm.forking(module):
        yield module


def test_three_ranks_stand_side_by_side_in_mlflow(three_runs, screenshot):
    """MLflow's comparison opens on the score over what differs, and shows all three runs; a run's page describes it."""
    runs = three_runs.runs()
    with screenshot.ui(three_runs.folder) as site, screenshot.browser() as page:
        opened = screenshot.compare(page, site, runs)
        assert opened == [["lora.alpha", "lora.r"], ["heldout/task_accuracy"]]
        assert all(name in screenshot.axes(page) for names in opened for name in names)
        names = page.js("document.body.innerText")
        assert "Comparing 3 Runs from 1 Experiment" in names
        assert all(f"flips-tiny-r{rank}" in names for rank in (8, 16, 64))
        assert screenshot.parameter(page, "lora.r") == ["8", "16", "64"]
        assert screenshot.parameter(page, "lora.alpha") == ["16.0", "32.0", "128.0"]
        assert screenshot.parameter(page, "trainer.learning_rate") == ["0.005"] * 3
        for name in ("final/exact_match", "final/loss"):
            shown = [float(value) for value in screenshot.metric(page, name)]
            assert shown == [round(run.data.metrics[name], 3) for run in runs]
        described(page, site, three_runs.client.get_run(three_runs.versions()[0].run_id))


def described(page, site, run):
    """Check that a run's page says its score with error, data, base and adapter, and links to its version's page."""
    address = f"{site}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
    page.open(address, "document.body.innerText.includes('held out, fingerprint')")
    said = page.js("document.body.innerText")
    assert f"base: bundled:tiny\nadapter: LoRA of rank {run.data.params['lora.r']}, alpha " in said
    loss = value_with_error(run.data.metrics["final/loss"], run.data.metrics["final/loss_se"])
    assert f"loss {loss}, on 16 rows" in said
    links = "[...document.querySelectorAll('a')].filter(a => a.innerText == 'loraloop version 1').map(a => a.href)"
    assert page.js(links) == [f"{site}/#/models/loraloop/versions/1"]


def test_the_trials_of_a_sweep_stand_side_by_side_in_mlflow(swept, screenshot):
    """The comparison of a sweep's trials opens on rank, alpha, learning rate and the loss that the sweep minimises."""
    runs = [run for run in swept.runs() if "trial" in run.data.tags and run.info.status == "FINISHED"]
    with screenshot.ui(swept.folder) as site, screenshot.browser(2400, 1000) as page:
        opened = screenshot.compare(page, site, runs)
        assert opened == [["lora.alpha", "lora.r", "trainer.learning_rate"], ["heldout/loss"]]
        assert all(name in screenshot.axes(page) for names in opened for name in names)
        assert f"Comparing {len(runs)} Runs from 1 Experiment" in page.js("document.body.innerText")
        for name in opened[0]:
            assert screenshot.parameter(page, name) == [run.data.params[name] for run in runs]
        shown = [float(value) for value in screenshot.metric(page, "eval/loss")]
        assert shown == [round(run.data.metrics["eval/loss"], 3) for run in runs]
