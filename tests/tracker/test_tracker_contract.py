"""What every tracker promises, for a local database, a real server and no tracking."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import signal
import socket
import sys
import time
import urllib.error
import urllib.request
from types import SimpleNamespace

import pytest
from matplotlib.figure import Figure

import warm
from loraloop.errors import PrunedError, TrackingError
from loraloop.tracker.mlflow import Mlflow
from loraloop.tracker.none import NoTracker
from waiting import until


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def server(template, tmp_path_factory):
    """A real MLflow server on loopback: its process and its address."""
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(template / "mlflow.db", folder)
    address = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        f"{folder}/artifacts",
    ]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with (folder / "log").open("wb") as log:
        process = warm.popen(
            command, cwd=folder, env=os.environ | settings, stdout=log, stderr=log, start_new_session=True
        )
    try:
        until(lambda: answers(address) or process.poll() is not None, "the server answers", pause=0.2)
        assert process.poll() is None, (folder / "log").read_text()
        yield process, address
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"{address}/health", timeout=1):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(params=["database", "server", "none"])
def tracker(request, tmp_path):
    """One tracker of each kind."""
    if request.param == "none":
        return NoTracker()
    if request.param == "database":
        return Mlflow(folder=str(request.getfixturevalue("folder")))
    _, address = request.getfixturevalue("server")
    return Mlflow(folder=str(tmp_path / "mlruns"), uri=address, experiment="contract")


def fill(run, tmp_path) -> None:
    """Call everything that a run can do."""
    adapter = tmp_path / "adapter"
    (adapter / "deep").mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "deep" / "weights.bin").write_bytes(bytes(range(256)))
    figure = Figure()
    figure.subplots().plot([1, 0.5])
    run.params({"lora.r": 16, "lora.targets": ["q_proj", "v_proj"], "lora.rank_pattern.^model$": 8})
    run.tags({"stage": "experiment"})
    for step in range(150):
        run.metrics({"train/loss": 1 / (step + 1), "train/lr": 1e-3}, step=step)
    run.metrics({"eval/loss": math.nan, "final/exact match (count)": 0.9})
    run.artifact(adapter, "adapter")
    run.artifact(adapter / "adapter_config.json")
    run.text("seed: 0\n", "config/resolved.yaml")
    run.table([{"prompt": "HHT", "correct": True, "loss": 0.5}, {"prompt": "é", "correct": False}], "samples.json")
    run.figure(figure, "plots/loss.png")
    run.dataset("flips", "ab" * 32, 80, "training")
    run.dataset("flips", "ab" * 32, 20, "validation")


class TestTracker:
    """The promises of the protocol."""

    def test_check_passes(self, tracker):
        """A backend that works passes its check, any number of times."""
        tracker.check()
        tracker.check()

    def test_keeps_everything(self, tracker, tmp_path):
        """What is logged is read back by id: parameters, last metrics, tags, status and the bytes of artifacts."""
        with tracker.start("full") as run:
            fill(run, tmp_path)
        if run.id is None:
            return
        stored = tracker.read(run.id)
        assert (stored["id"], stored["name"], stored["status"]) == (run.id, "full", "FINISHED")
        assert stored["link"] == run.link
        expected = {"lora.r": "16", "lora.targets": "['q_proj', 'v_proj']", "lora.rank_pattern._model_": "8"}
        assert stored["params"] == expected
        assert stored["metrics"]["train/loss"] == pytest.approx(1 / 150)
        assert stored["metrics"]["final/exact match _count_"] == 0.9
        assert math.isnan(stored["metrics"]["eval/loss"])
        assert stored["tags"]["stage"] == "experiment"
        assert {"version.torch", "hardware.cpu", "mlflow.user"} <= set(stored["tags"])
        folder = tracker.artifacts(run.id)
        assert (folder / "adapter" / "deep" / "weights.bin").read_bytes() == bytes(range(256))
        assert (folder / "adapter_config.json").read_text() == "{}"
        assert (folder / "config" / "resolved.yaml").read_text() == "seed: 0\n"
        assert (folder / "plots" / "loss.png").read_bytes().startswith(b"\x89PNG")
        assert json.loads((folder / "samples.json").read_text()) == {
            "columns": ["prompt", "correct", "loss"],
            "data": [["HHT", True, 0.5], ["é", False, None]],
        }

    @pytest.mark.parametrize(
        ("error", "status"),
        [(KeyboardInterrupt, "KILLED"), (PrunedError, "KILLED"), (ValueError, "FAILED"), (SystemExit, "FAILED")],
    )
    def test_marks_how_a_run_ended(self, tracker, error, status):
        """Leaving by an exception marks the run and passes the exception on."""
        with pytest.raises(error), tracker.start("ends badly") as run:
            raise error("loss is NaN")
        if run.id is not None:
            assert tracker.read(run.id)["status"] == status

    def test_nests_and_leaves_nothing_active(self, tracker):
        """A run within a run is its child; another after it is not, and MLflow's global run is never touched."""
        import mlflow

        with tracker.start("parent") as parent:
            with tracker.start("child", parent=parent.id) as child:
                child.metrics({"eval/loss": 1.0})
            assert mlflow.active_run() is None
        with tracker.start("next") as after:
            pass
        if parent.id is not None:
            assert tracker.read(child.id)["tags"]["mlflow.parentRunId"] == parent.id
            assert "mlflow.parentRunId" not in tracker.read(after.id)["tags"]
            assert "eval/loss" not in tracker.read(parent.id)["metrics"]

    def test_goes_on_with_an_earlier_run(self, tracker):
        """A run that ended is taken up under its own id, keeps what it had, and ends anew."""
        with tracker.start("sweep") as before:
            before.metrics({"best/loss": 0.5}, step=1)
        with tracker.start("another name", resume=before.id) as run:
            assert run.id == before.id
            if run.id is not None:
                assert tracker.read(run.id)["status"] == "RUNNING"
            run.metrics({"best/loss": 0.25}, step=2)
        if run.id is not None:
            stored = tracker.read(run.id)
            assert (stored["name"], stored["status"], stored["metrics"]["best/loss"]) == ("sweep", "FINISHED", 0.25)

    def test_a_clock_that_is_behind_makes_nothing_older(self, tracker, monkeypatch):
        """What another machine logs later is the newer one, though its clock is an hour behind."""
        with tracker.start("first") as before:
            before.metrics({"saved/share": 0.75})
        behind = SimpleNamespace(time_ns=lambda: time.time_ns() - 3600 * 10**9)
        monkeypatch.setattr("loraloop.tracker.outbox.time", behind)
        with tracker.start("second", resume=before.id) as run:
            run.metrics({"saved/share": 0.5})
        if run.id is not None:
            assert tracker.read(run.id)["metrics"]["saved/share"] == 0.5

    def test_a_refused_parameter_costs_a_resumed_run_nothing_else(self, tracker):
        """A parameter that an earlier part logged otherwise is dropped; metrics, tags and status of the rest arrive."""
        with tracker.start("first") as before:
            before.params({"epochs": 3})
        with tracker.start("second", resume=before.id) as run:
            run.params({"epochs": 4, "lora.r": 8})
            run.metrics({"train/loss": 0.5})
            run.tags({"stage": "experiment"})
        if run.id is not None:
            stored = tracker.read(run.id)
            assert (stored["status"], stored["params"]) == ("FINISHED", {"epochs": "3", "lora.r": "8"})
            assert (stored["metrics"]["train/loss"], stored["tags"]["stage"]) == (0.5, "experiment")

    def test_an_unknown_run_is_an_error(self, tracker):
        """Neither an unknown name nor an unknown id is answered with something else."""
        for unknown in ("no such run", "0" * 32):
            with pytest.raises(TrackingError):
                tracker.read(unknown)
            with pytest.raises(TrackingError):
                tracker.artifacts(unknown)

    def test_a_missing_artifact_is_an_error(self, tracker, tmp_path):
        """A path at which there is nothing is a mistake of the caller, except where nothing is kept anyway."""
        with tracker.start("careless") as run:
            if run.id is not None:
                with pytest.raises(TrackingError, match="does not exist"):
                    run.artifact(tmp_path / "missing")


class TestServer:
    """A server that does not answer."""

    @pytest.mark.fault("MLflow hung", "train", "training goes on; every entry arrives when the server answers again")
    def test_a_server_that_hangs_in_the_middle_loses_nothing(self, server, tmp_path, monkeypatch, caplog):
        """While the server is stopped all is kept in a file, with one warning; once it goes on everything arrives."""
        process, address = server
        tracker = Mlflow(folder=str(tmp_path / "mlruns"), uri=address, experiment="hangs", system_metrics=False)
        unsent = tmp_path / "mlruns" / "unsent"
        with caplog.at_level(logging.WARNING), tracker.start("patient") as run:
            run.metrics({"train/loss": 1.0}, step=0)
            os.killpg(process.pid, signal.SIGSTOP)
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
            try:
                run.params({"lora.r": 8})
                run.metrics({"train/loss": 0.5}, step=1)
                run.text("kept", "note.txt")
                run.dataset("flips", "ab" * 32, 80, "training")
                kept = (unsent / run.id / "entries.jsonl").read_text()
                assert '"lora.r"' in kept
                assert (unsent / run.id / "artifacts" / "note.txt").read_text() == "kept"
            finally:
                monkeypatch.undo()
                os.killpg(process.pid, signal.SIGCONT)
        assert [record.name for record in caplog.records if record.name.startswith("loraloop")] == [
            "loraloop.tracker.mlflow_run"
        ]
        assert str(unsent / run.id) in caplog.text
        stored = tracker.read(run.id)
        assert (stored["status"], stored["params"], stored["metrics"]) == (
            "FINISHED",
            {"lora.r": "8"},
            {"train/loss": 0.5},
        )
        assert (tracker.artifacts(run.id) / "note.txt").read_text() == "kept"
        assert not (unsent / run.id).exists()

    def test_a_server_that_hangs_fails_the_check(self, server, tmp_path, monkeypatch):
        """A server that accepts connections and never answers is an error, with the address and ways out."""
        monkeypatch.setattr("loraloop.tracker.mlflow.REACH_SECONDS", 0.5)
        process, address = server
        os.killpg(process.pid, signal.SIGSTOP)
        try:
            with pytest.raises(TrackingError, match=f"{address} cannot be used .no answer within") as caught:
                Mlflow(folder=str(tmp_path), uri=address).check()
            assert "tracker=none" in str(caught.value)
        finally:
            os.killpg(process.pid, signal.SIGCONT)

    def test_a_dead_server_fails_the_check(self, tmp_path):
        """Where nothing listens the check is an error, and nothing is written."""
        with pytest.raises(TrackingError, match="cannot be used"):
            Mlflow(folder=str(tmp_path / "mlruns"), uri=f"http://127.0.0.1:{free_port()}").check()
        assert list(tmp_path.iterdir()) == []
