"""MLflow in a local folder. What it shares with the other trackers is in test_tracker_contract.py."""

from __future__ import annotations

import json
import logging
import os
import shlex
import shutil

import pytest
from pydantic import ValidationError

from loraloop.errors import TrackingError
from loraloop.tracker.mlflow import Mlflow


@pytest.fixture
def tracker(folder):
    """A tracker with a folder of its own, without system metrics."""
    return Mlflow(folder=str(folder), system_metrics=False)


@pytest.fixture
def client(tracker):
    """MLflow's own client of the same database, to look at what arrived."""
    from mlflow import MlflowClient

    return MlflowClient(tracker.tracking_uri)


class TestSettings:
    """What the YAML says."""

    @pytest.mark.parametrize("uri", ["mlruns", "file:///tmp/mlruns", "sqlite:///mlflow.db", "http://", ""])
    def test_only_a_server_has_an_address(self, uri):
        """An address that is not a server's is refused with what to write instead."""
        with pytest.raises(ValidationError, match="leave it null and set folder"):
            Mlflow(uri=uri)

    def test_a_relative_folder_is_where_the_command_ran(self, tmp_path, monkeypatch):
        """The database's address is absolute, so that a run started elsewhere later does not make another."""
        monkeypatch.chdir(tmp_path)
        assert Mlflow().tracking_uri == f"sqlite:///{tmp_path}/mlruns/mlflow.db"

    def test_the_line_that_opens_the_ui_is_one_command(self, tmp_path):
        """The command names a program that exists and the database's absolute address, quoted for a shell."""
        program, *rest = shlex.split(str(Mlflow(folder=f"{tmp_path}/my runs").ui_command))
        assert shutil.which(program)
        assert rest == [
            "ui",
            "--workers",
            "1",
            "--backend-store-uri",
            f"sqlite:///{tmp_path}/my runs/mlflow.db",
        ]
        assert Mlflow(uri="http://127.0.0.1:5000").ui_command is None

    def test_an_address_in_the_environment_that_is_not_used_is_named(self, tracker, monkeypatch, caplog):
        """MLFLOW_TRACKING_URI is named with the place that is used and the override that uses it; a password is not."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@mlflow.example.org")
        tracker.check()
        (line,) = [record.getMessage() for record in caplog.records]
        assert line.startswith("MLFLOW_TRACKING_URI=http://me:***@mlflow.example.org is not used: runs are logged to ")
        assert tracker.tracking_uri in line
        assert "'tracker.uri=${oc.env:MLFLOW_TRACKING_URI}'" in line

    def test_pickles_and_telemetry_are_off(self, tracker, monkeypatch):
        """Using the tracker forbids MLflow to load pickles, sends nothing home, and never retries for minutes."""
        monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
        for name in ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        tracker.check()
        assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"
        assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "0"


class TestStart:
    """Opening and leaving a run."""

    def test_run_name_replaces_that_of_a_run_without_parent(self, folder):
        """A person's name goes to the run they started, not to all of its children."""
        tracker = Mlflow(folder=str(folder), run_name="mine", system_metrics=False)
        with tracker.start("experiment") as run, tracker.start("trial 0", parent=run.id) as trial:
            pass
        assert (tracker.read("mine")["id"], tracker.read("trial 0")["id"]) == (run.id, trial.id)

    def test_makes_another_experiment_in_a_database_that_is_there(self, folder):
        """An experiment that is missing is made, with its artifacts in the same folder."""
        tracker = Mlflow(folder=str(folder), experiment="ocr", system_metrics=False)
        with tracker.start("run") as run:
            run.text("hello", "note.txt")
        assert tracker.artifacts("run") == folder / "artifacts" / run.id / "artifacts"

    def test_a_deleted_experiment_is_an_error(self, tracker, client):
        """Logging into an experiment in the bin would be lost with it; the message says how to restore it."""
        number = client.get_experiment_by_name("loraloop").experiment_id
        client.delete_experiment(number)
        with pytest.raises(TrackingError, match=f"experiments restore --experiment-id {number}"), tracker.start("run"):
            pass

    def test_a_failed_run_says_why(self, tracker):
        """The error that ended a run is a tag of it."""
        with pytest.raises(ValueError, match="NaN"), tracker.start("run"):
            raise ValueError("loss is NaN at step 3")
        assert tracker.read("run")["tags"]["error"] == "ValueError: loss is NaN at step 3"


class TestRun:
    """What a run logs."""

    def test_a_parameter_keeps_its_first_value(self, tracker, caplog):
        """Another value for a key is warned of, and does not take the rest of its batch with it."""
        with tracker.start("run") as run:
            run.params({"lora.r": 8})
            run.params({"lora.r": 16, "lora.alpha": 32})
        assert tracker.read("run")["params"] == {"lora.r": "8", "lora.alpha": "32"}
        assert "lora.r is logged as 8 already" in caplog.text

    def test_many_and_long_parameters_are_kept(self, tracker):
        """More than 100 parameters arrive, and one of 10,000 characters is cut at 6,000."""
        with tracker.start("run") as run:
            run.params({f"key.{number}": number for number in range(250)} | {"long": "x" * 10_000, "empty": ""})
        params = tracker.read("run")["params"]
        assert {params[f"key.{number}"] for number in range(250)} == set(map(str, range(250)))
        assert params["long"] == "x" * 5999 + "…"
        assert params["empty"] == ""

    def test_every_metric_of_a_long_run_is_kept(self, tracker, client):
        """2,500 values of one metric are all in its history, in order, with their steps."""
        with tracker.start("run") as run:
            for step in range(2500):
                run.metrics({"train/loss": step / 7}, step=step)
        history = client.get_metric_history(run.id, "train/loss")
        assert [(point.step, point.value) for point in history] == [(step, step / 7) for step in range(2500)]

    def test_tables_are_listed_for_the_ui(self, tracker, client, monkeypatch):
        """Each table is once in the tag by which MLflow's UI and ``load_table`` find it."""
        with tracker.start("run") as run:
            run.table([{"a": 1}], "first.json")
            run.table([{"a": 2}], "final/second")
            run.table([{"a": 3}], "first.json")
        listed = json.loads(tracker.read("run")["tags"]["mlflow.loggedArtifacts"])
        assert listed == [{"path": "first.json", "type": "table"}, {"path": "final/second.json", "type": "table"}]
        number = client.get_run(run.id).info.experiment_id
        monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.tracking_uri)  # load_table ignores its own client's
        assert client.load_table(number, "first.json", [run.id]).to_dict("list") == {"a": [3]}

    def test_both_sides_of_a_split_are_inputs(self, tracker, client):
        """Training and validation data of one fingerprint are two inputs, with their rows and contexts."""
        with tracker.start("run") as run:
            run.dataset("flips", "ab" * 32, 80, "training")
            run.dataset("flips", "ab" * 32, 20, "validation")
        inputs = client.get_run(run.id).inputs.dataset_inputs
        rows = {put.tags[0].value: json.loads(put.dataset.profile)["num_rows"] for put in inputs}
        assert rows == {"training": 80, "validation": 20}
        assert {json.loads(put.dataset.source)["fingerprint"] for put in inputs} == {"ab" * 32}


class TestFullDisk:
    """A disk on which nothing more fits."""

    def test_nothing_is_lost_when_room_comes_back(self, tracker, folder, caplog, capfd, full_disk):
        """What the full disk refused is in a file, with one warning and no traceback, and is logged at the end."""
        with caplog.at_level(logging.WARNING), tracker.start("run") as run:
            with full_disk(60_000):
                run.params({"lora.r": 8})
                run.metrics({"train/loss": 0.5}, step=1)
                run.tags({"stage": "experiment"})
                kept = (folder / "unsent" / run.id / "entries.jsonl").read_text().splitlines()
            assert json.loads(kept[0])["key"] == "lora.r"
        assert len(caplog.records) == 1
        assert str(folder / "unsent" / run.id) in caplog.text
        assert "Traceback" not in capfd.readouterr().err
        stored = tracker.read("run")
        assert (stored["params"], stored["metrics"], stored["status"]) == (
            {"lora.r": "8"},
            {"train/loss": 0.5},
            "FINISHED",
        )
        assert stored["tags"]["stage"] == "experiment"
        assert not (folder / "unsent" / run.id).exists()

    def test_the_file_stays_when_room_does_not_come_back(self, tracker, folder, full_disk):
        """When the run ends on a full disk no error escapes, and every entry up to the status is in the file."""
        opened = tracker.start("run")
        run = opened.__enter__()
        with full_disk(60_000):
            run.metrics({"train/loss": 0.5}, step=1)
            opened.__exit__(None, None, None)
        lines = [json.loads(line) for line in (folder / "unsent" / run.id / "entries.jsonl").read_text().splitlines()]
        assert [(line["kind"], line["value"]) for line in lines] == [("metric", 0.5), ("status", "FINISHED")]

    def test_a_run_that_cannot_be_opened_is_an_error(self, tracker, full_disk):
        """When there is no room for the run itself the stage learns so before any work."""
        with full_disk(60_000), pytest.raises(TrackingError, match="disk"), tracker.start("run"):
            pass


class TestRead:
    """Finding an earlier run."""

    def test_a_name_of_several_runs_is_refused(self, tracker):
        """Two runs of one name are not guessed between; their ids are listed."""
        ids = []
        for _ in range(2):
            with tracker.start("twin") as run:
                ids.append(run.id)
        with pytest.raises(TrackingError, match="several runs are named 'twin'") as caught:
            tracker.read("twin")
        assert all(number in str(caught.value) for number in ids)

    def test_an_unknown_name_lists_the_latest(self, tracker):
        """The message names the latest runs with their ids, so that the right one can be copied."""
        for name in ("first", "second"):
            with tracker.start(name) as run:
                pass
        with pytest.raises(TrackingError, match=r"the latest: second .* first ") as caught:
            tracker.read("third")
        assert f"second ({run.id}, FINISHED)" in str(caught.value)

    @pytest.mark.parametrize("name", ["it's", 'the "best"', "50% done", "a\\b"])
    def test_names_may_hold_any_character(self, tracker, name):
        """A run is found by a name with quotes or signs that a search reads."""
        with tracker.start(name) as run:
            pass
        assert tracker.read(name)["id"] == run.id

    def test_a_folder_without_database_is_an_error(self, tmp_path):
        """Reading where nothing was tracked says so, and does not make a database."""
        with pytest.raises(TrackingError, match="nothing has been tracked in this folder yet"):
            Mlflow(folder=str(tmp_path / "mlruns")).read("run")
        assert list(tmp_path.iterdir()) == []

    def test_a_run_without_artifacts_says_so(self, tracker):
        """A run that kept nothing is not answered with an empty folder."""
        with tracker.start("bare"):
            pass
        with pytest.raises(TrackingError, match="run bare kept no artifacts: its status is FINISHED"):
            tracker.artifacts("bare")
