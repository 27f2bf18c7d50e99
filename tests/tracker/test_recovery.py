"""Runs of processes that died, and what they had not sent."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time

import pytest
from mlflow import MlflowClient

from loraloop.errors import TrackingError
from loraloop.tracker.mlflow import Mlflow
from loraloop.tracker.recovery import DIED


@pytest.fixture
def tracker(folder):
    """A tracker with a folder of its own, without system metrics."""
    return Mlflow(folder=str(folder), system_metrics=False)


def in_a_process_that_is_killed(work):
    """Do ``work`` in a process that then ends by SIGKILL."""

    def body():
        work()
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def an_hour_ahead():
    """Set this process's clock, by which MLflow's client says when a run begins."""
    real = time.time
    time.time = lambda: real() + 3600


@pytest.mark.fault(
    "kill -9, in MLflow", "train", "the next run ends the dead one as KILLED; at most 5 s of metrics are lost"
)
def test_a_run_whose_process_was_killed_is_ended_by_the_next_start(tracker, folder):
    """It is KILLED with the reason, not before it began by its machine's clock; a run that is logged to goes on."""
    opened = tracker.start("killed")
    in_a_process_that_is_killed(lambda: (an_hour_ahead(), opened.__enter__()))
    assert tracker.read("killed")["status"] == "RUNNING"
    with tracker.start("alive") as alive:
        with tracker.start("next"):
            pass
        assert tracker.read(alive.id)["status"] == "RUNNING"
    killed = tracker.read("killed")
    assert (killed["status"], killed["tags"]["error"]) == ("KILLED", DIED)
    info = MlflowClient(tracker.tracking_uri).get_run(killed["id"]).info
    assert 1000 * time.time() < info.start_time <= info.end_time
    assert tracker.read("alive")["status"] == "FINISHED"
    assert list((folder / "open").iterdir()) == []


@pytest.mark.fault("MLflow away to the end", "train", "kept in unsent/, sent by the next run")
def test_what_was_not_sent_is_sent_at_the_next_start(tracker, folder, full_disk):
    """Metrics, status and artifacts that a full disk refused to the end arrive with the next run of any name."""
    opened = tracker.start("run")
    run = opened.__enter__()
    with full_disk(60_000):
        run.metrics({"train/loss": 0.5}, step=1)
        run.params({"lora.r": 8})
        run.text("kept", "note.txt")
        opened.__exit__(None, None, None)
    assert tracker.read("run")["status"] == "RUNNING"
    for _ in range(2):
        with tracker.start("next"):
            pass
    stored = tracker.read("run")
    assert (stored["status"], stored["params"], stored["metrics"]) == ("FINISHED", {"lora.r": "8"}, {"train/loss": 0.5})
    assert (tracker.artifacts("run") / "note.txt").read_text() == "kept"
    assert list((folder / "unsent").iterdir()) == []


def test_what_belongs_to_another_backend_stays(tracker, folder):
    """Entries of a run that this database does not know, or that was deleted, are kept as they are."""
    with tracker.start("deleted") as run:
        pass
    tracker._client().delete_run(run.id)
    files = [folder / "unsent" / run_id / "entries.jsonl" for run_id in ("0" * 32, run.id)]
    for file in files:
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"kind": "tag", "key": "a", "value": "b", "timestamp": 1, "step": 0}) + "\n")
    with tracker.start("next"):
        pass
    assert all(file.exists() for file in files)
    with pytest.raises(TrackingError, match=f"mlflow runs restore --run-id {run.id}"):
        tracker.read(run.id)


def test_a_run_that_is_deleted_while_it_logs_ends_in_peace(tracker, caplog):
    """What it logs from then on is dropped with one warning, and nothing is kept for later."""
    with tracker.start("deleted") as run:
        tracker._client().delete_run(run.id)
        run.params({"lora.r": 8, "lora.alpha": 16})
        run.metrics({"train/loss": 0.5})
    assert [record.getMessage().partition(" while")[0] for record in caplog.records] == [f"Run {run.id} was deleted"]
